"""Anybody's module is a space of three lines: choices, a constructor with sizes, rules for fused tensors."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import Choice, InputError, SearchSpace, heads
from supernets import KernelTransform, Slice, Supernet


def timm_space(**fixed: object) -> SearchSpace:
    sizes = {"img_size": 32, "patch_size": 8, "num_heads": 3, "num_classes": 10, **fixed}
    choices = [Choice("depth", (1, 2, 3)), Choice("embed_dim", (48, 96)), Choice("mlp_ratio", (2.0, 4.0))]
    rules = {"blocks.*.attn.qkv.*": heads(3)}
    build = lambda arch: VisionTransformer(**sizes, **arch)  # noqa: E731
    return SearchSpace("timm_vit", choices, build, input_shape=(3, 32, 32), rules=rules)


class SwiGlu(nn.Module):
    """Gate and value in one matrix; normalised; added."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(self.norm(x)).chunk(2, dim=-1)
        return x + self.w3(F.silu(gate) * value)


class LanguageModel(nn.Module):
    """Tokens in, logits out: tied embedding, computed positions, a frozen scale, a list of modules."""

    def __init__(self, depth: int, dim: int, hidden: int, vocabulary: int = 11, length: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.mix = nn.Linear(length, length)
        self.blocks = nn.ModuleList(SwiGlu(dim, hidden) for _ in range(depth))
        self.head = nn.Linear(dim, vocabulary, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.full((dim,), 0.5), requires_grad=False)
        angles = torch.arange(length)[:, None] / 10.0 ** (torch.arange(dim) / dim)
        self.register_buffer("positions", angles.sin() * depth, persistent=False)
        self.backwards = list(self.blocks)[::-1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.long()) * self.scale + self.positions
        x = x + self.mix(x.transpose(1, 2)).transpose(1, 2)
        for block in self.backwards:
            x = block(x)
        return self.head(x)


def language_space() -> SearchSpace:
    choices = [Choice("depth", (1, 2, 3)), Choice("dim", (8, 12)), Choice("hidden", (4, 6, 10))]
    return SearchSpace(
        "words",
        choices,
        lambda arch: LanguageModel(**arch),
        input_shape=(6,),
        rules={"*.w12.*": heads(2)},
    )


def tokens(batch: int = 3) -> Tensor:
    return torch.randint(0, 11, (batch, 6)).float()


def spread(supernet: Supernet) -> Supernet:
    """Random numbers where a constructor sets zeros and ones."""
    with torch.no_grad():
        for p in supernet.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return supernet.eval()


# -- timm's vision transformer, as it is ---------------------------------------------------------------------


def test_timm_s_checkpoint_loads_and_the_largest_is_timm_s_model_bit_for_bit():
    space = timm_space()
    model = VisionTransformer(
        img_size=32, patch_size=8, num_heads=3, num_classes=10, depth=3, embed_dim=96, mlp_ratio=4.0
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    supernet = Supernet(space).eval()
    assert list(supernet.shared_state()) == list(model.state_dict())
    supernet.load_shared_state(model.state_dict())
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(supernet(x, space.largest), model(x))
        assert torch.equal(supernet.extract(space.largest)(x), model(x))
    extracted = supernet.extract(space.smallest)
    small = space.build(space.smallest).eval()
    small.load_state_dict(extracted.state_dict())
    assert torch.equal(small(x), extracted(x))


@pytest.mark.parametrize("scheme", [Slice, KernelTransform])
def test_every_arch_of_timm_s_transformer(scheme):
    space = timm_space()
    supernet = spread(Supernet(space, scheme()))
    x = torch.randn(2, 3, 32, 32)
    outputs = set()
    for depth in (1, 2, 3):
        for dim in (48, 96):
            for ratio in (2.0, 4.0):
                arch = space.arch({"depth": depth, "embed_dim": dim, "mlp_ratio": ratio})
                y = supernet(x, arch)
                assert torch.equal(y, supernet.extract(arch)(x))
                outputs.add(y.sum().item())
    assert len(outputs) == space.size == 12


def test_costs_of_timm_s_transformer_need_no_more_lines(rng):
    space = timm_space()
    population = space.index([space.smallest, space.largest])
    costs = space.costs(population)
    for arch, params in zip(space.archs(population), costs.params, strict=True):
        assert params == sum(p.numel() for p in space.build(arch).parameters())


def test_heads_of_timm_s_fused_qkv_stay_apart():
    space = timm_space()
    supernet = Supernet(space)
    whole = supernet.shared["blocks.0.attn.qkv.weight"].view(3, 96, 96)
    small = supernet.subnet(space.smallest).blocks[0].attn.qkv.weight.view(3, 48, 48)
    assert torch.equal(small, whole[:, :48, :48])


# -- a module with everything that is awkward ----------------------------------------------------------------


def test_a_gated_language_model_of_one_s_own():
    space = language_space()
    supernet = spread(Supernet(space))
    x = tokens()
    for depth in (1, 2, 3):
        for dim in (8, 12):
            for hidden in (4, 6, 10):
                arch = space.arch({"depth": depth, "dim": dim, "hidden": hidden})
                model = supernet.extract(arch)
                with torch.no_grad():
                    for _ in range(2):  # the second draw comes from a copied skeleton
                        assert torch.equal(supernet.subnet(arch)(x), model(x))
                plain = space.build(arch).eval()
                plain.load_state_dict(model.state_dict())
                assert torch.equal(plain(x), model(x))


def test_gate_and_value_keep_their_places():
    space = language_space()
    supernet = Supernet(space)
    whole = supernet.shared["blocks.0.w12.weight"].view(2, 10, 12)
    small = supernet.subnet(space.smallest).blocks[0].w12.weight.view(2, 4, 8)
    assert torch.equal(small, whole[:, :4, :8])


def test_tied_tensors_are_stored_once_and_stay_tied():
    space = language_space()
    supernet = Supernet(space)
    assert "embed.weight" in supernet.shared
    assert "head.weight" not in supernet.shared
    for module in (
        supernet.subnet(space.smallest),
        supernet.extract(space.smallest),
        supernet.subnet(space.smallest),
    ):
        assert module.head.weight is module.embed.weight
    costs = space.costs(space.index([space.smallest]))
    assert costs.params[0] == sum(p.numel() for p in supernet.extract(space.smallest).parameters())


def test_a_checkpoint_with_tied_tensors_loads():
    """A plain state_dict names a tied tensor twice; that was once refused as an unknown name."""
    space = language_space()
    model = space.build(space.largest)
    supernet = Supernet(space, seed=3)
    supernet.load_shared_state(model.state_dict())
    assert torch.equal(supernet.shared["embed.weight"], model.embed.weight)
    untied = model.state_dict() | {"head.weight": model.embed.weight + 1}
    with pytest.raises(InputError, match=r"head.weight and embed.weight are one tensor there, but have two"):
        supernet.load_shared_state(untied)


def test_buffers_that_the_constructor_computes_come_from_the_constructor():
    space = language_space()
    supernet = Supernet(space)
    assert "positions" not in supernet.shared_state()
    state = torch.get_rng_state()
    for arch in (space.smallest, space.largest, space.smallest):
        expected = space.build(arch).positions
        torch.set_rng_state(state)
        assert torch.equal(supernet.subnet(arch).positions, expected)
        assert torch.equal(supernet.extract(arch).positions, expected)
        assert torch.equal(torch.get_rng_state(), state)
    model = supernet.extract(space.smallest)
    model.positions.zero_()
    assert supernet.extract(space.smallest).positions.any()


def test_modules_in_a_list_are_those_of_the_subnet():
    space = language_space()
    supernet = Supernet(space)
    first, second = supernet.subnet(space.largest), supernet.subnet(space.largest)
    third = supernet.extract(space.largest)
    for net in (first, second, third):
        assert [id(m) for m in net.backwards] == [id(m) for m in reversed(list(net.blocks))]
    assert first.backwards[0] is not second.backwards[0]


def test_what_the_module_froze_stays_frozen():
    """A parameter that the constructor does not train was once trained by the supernet."""
    space = language_space()
    supernet = Supernet(space)
    frozen = [n for n, p in supernet.named_parameters() if not p.requires_grad]
    assert frozen == ["shared.scale"]
    model = supernet.extract(space.smallest)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["scale"]
    supernet(tokens(), space.smallest).sum().backward()
    assert supernet.shared["scale"].grad is None
    assert supernet.shared["embed.weight"].grad is not None


def test_a_module_tied_to_itself_runs_twice_with_one_set_of_weights():
    class Recurrent(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.step = nn.Linear(width, width)
            self.again = self.step

        def forward(self, x: Tensor) -> Tensor:
            x = x[:, : self.step.in_features]
            return self.again(torch.tanh(self.step(x)))

    space = SearchSpace(
        "recurrent", [Choice("width", (2, 4))], lambda arch: Recurrent(**arch), input_shape=(4,)
    )
    supernet = Supernet(space).eval()
    assert list(supernet.shared) == ["step.weight", "step.bias"]
    supernet.load_shared_state(space.build(space.largest).state_dict())
    x = torch.randn(3, 4)
    for arch in (space.largest, space.smallest, space.smallest):
        subnet = supernet.subnet(arch)
        assert subnet.again is subnet.step
        assert torch.equal(subnet(x), supernet.extract(arch)(x))


def test_a_categorical_choice_brings_tensors_of_its_own():
    class Either(nn.Module):
        def __init__(self, op: str, width: int) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, width, 1)
            self.add_module(op, nn.Conv2d(width, width, 3 if op == "conv" else 1, padding="same"))
            self.op = op

        def forward(self, x: Tensor) -> Tensor:
            return self.get_submodule(self.op)(self.stem(x))

    space = SearchSpace(
        "either",
        [Choice("op", ("conv", "pointwise", "other")), Choice("width", (2, 4))],
        lambda arch: Either(**arch),
        input_shape=(1, 5, 5),
    )
    supernet = Supernet(space, KernelTransform()).eval()
    x = torch.randn(2, 1, 5, 5)
    for op in ("conv", "pointwise", "other"):
        for width in (2, 4):
            arch = space.arch({"op": op, "width": width})
            assert torch.equal(supernet(x, arch), supernet.extract(arch)(x))
            assert {n for n in supernet.touched([arch]) if op in n} == {
                f"shared.{op}.weight",
                f"shared.{op}.bias",
            }
    assert len(supernet.shared) == 8
