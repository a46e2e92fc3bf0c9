"""TLEG: layers on a line from a base and a slope, descendants of any depth."""

from __future__ import annotations

import pytest
import torch
from drawn import assert_equal
from learngenes import BLOCK, LEAVES, count, depths, layers, learngene, of_depth, pictures
from torch import nn

from search_spaces import Choice, SearchSpace, SpaceError
from supernets import LinearExpansion, Slice, Supernet
from supernets.optimiser import make_optimizer
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    return learngene(LinearExpansion(), 3, 6)


def descendant(supernet: Supernet, depth: int) -> nn.Module:
    return of_depth(supernet, depth, LinearExpansion())


# -- the line ------------------------------------------------------------------------------------------------


def test_layer_0_is_the_base_at_every_depth(supernet):
    for depth in (1, 2, 5, 6, 11):
        for leaf in LEAVES:
            assert_equal(
                layers(descendant(supernet, depth), leaf)[0].data, supernet.shared[f"blocks.base.{leaf}"].data
            )


def test_a_network_of_one_layer_is_the_base_alone(supernet):
    touched = supernet.touched([supernet.space.smallest])
    one = Supernet(depths(1), LinearExpansion())
    assert {name for name in touched if ".slope." in name}
    assert not {name for name in one.touched([one.space.largest]) if ".slope." in name}


@pytest.mark.parametrize("depth", [1, 3, 4, 6])
def test_layer_l_of_depth_d_is_layer_2l_of_depth_2d(supernet, depth):
    short, long = descendant(supernet, depth), descendant(supernet, 2 * depth)
    for leaf in LEAVES:
        for a, b in zip(layers(short, leaf), layers(long, leaf)[::2], strict=True):
            assert_equal(a.data, b.data)


def test_the_line_is_as_published(supernet):
    for layer, tensor in enumerate(layers(descendant(supernet, 7))):
        base, slope = (supernet.shared[f"blocks.{k}.attn.qkv.weight"].data for k in ("base", "slope"))
        torch.testing.assert_close(tensor.data, base + layer / 7 * slope)


def test_second_differences_are_0(supernet):
    for leaf in LEAVES:
        stacked = torch.stack(layers(descendant(supernet, 9), leaf)).detach().double()
        assert stacked.diff(dim=0).abs().max() > 1e-3
        assert stacked.diff(n=2, dim=0).abs().max() < 1e-6


def test_without_slope_all_layers_are_one():
    supernet = learngene(LinearExpansion(), 5)
    with torch.no_grad():
        for name, tensor in supernet.shared_state().items():
            if ".slope." in name:
                tensor.zero_()
    for leaf in LEAVES:
        first, *others = layers(descendant(supernet, 5), leaf)
        assert all(torch.equal(first, other) for other in others)


def test_in_half_precision_the_sum_is_formed_in_float32():
    supernet = learngene(LinearExpansion(), 6).half()
    name = "blocks.{}.attn.qkv.weight"
    base, slope = supernet.shared[name.format("base")], supernet.shared[name.format("slope")]
    expected = torch.add(base.float(), slope.float(), alpha=5 / 6).half()
    found = layers(supernet.subnet(supernet.space.largest))[5]
    assert found.dtype == torch.float16
    assert torch.equal(found, expected)


# -- the learngene -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 6, 12])
def test_two_blocks_are_stored_whatever_the_depth(depth):
    supernet = Supernet(depths(depth), LinearExpansion())
    shared_by_all = count(supernet.space.build(supernet.space.largest)) - depth * BLOCK
    assert count(supernet) == 2 * BLOCK + shared_by_all


def test_the_size_of_the_paper():
    """Learngenes of 3.55 and 14.2 million parameters for widths 384 and 768 (before embeddings)."""
    for dim, millions in ((384, 3.55), (768, 14.2)):
        assert 2 * (12 * dim**2 + 13 * dim) / 1e6 == pytest.approx(millions, abs=0.03)


def test_first_values_are_those_of_the_paper():
    state = Supernet(depths(6, embed_dims=(64,), heads=(4,), head_dim=16), LinearExpansion()).shared_state()
    for kind, norm in (("base", 1.0), ("slope", 0.0)):
        for leaf in LEAVES:
            tensor = state[f"blocks.{kind}.{leaf}"]
            if leaf in ("norm1.weight", "norm2.weight"):
                assert (tensor == norm).all()
            elif leaf.endswith("bias"):
                assert not tensor.any()
            else:
                assert float(tensor.std()) == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(state["blocks.base.mlp.fc1.weight"], state["blocks.slope.mlp.fc1.weight"])


def test_gradients_are_those_of_a_materialised_model():
    supernet = learngene(LinearExpansion(), 6).double()
    arch, x = supernet.space.largest, pictures().double()
    plain = supernet.extract(arch)
    supernet(x, arch).square().sum().backward()
    plain(x).square().sum().backward()
    for leaf in LEAVES:
        grads = [tensor.grad for tensor in layers(plain, leaf)]
        base, slope = (supernet.shared[f"blocks.{kind}.{leaf}"].grad for kind in ("base", "slope"))
        torch.testing.assert_close(base, sum(grads))
        torch.testing.assert_close(slope, sum(layer / 6 * grad for layer, grad in enumerate(grads)))


def test_the_slope_may_go_without_weight_decay():
    def decayed(scheme: LinearExpansion) -> set[str]:
        supernet = Supernet(depths(3), scheme)
        names = {id(p): n for n, p in supernet.named_parameters()}
        phase = Phase(name="p", epochs=1, policy=Uniform(), optimizer="adamw", weight_decay=0.05)
        groups = make_optimizer(supernet, phase).param_groups
        return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}

    slopes = {f"shared.blocks.slope.{leaf}" for leaf in LEAVES if "norm" not in leaf and "weight" in leaf}
    with_decay, without = decayed(LinearExpansion()), decayed(LinearExpansion(decay_slope=False))
    assert with_decay - without == slopes
    assert without < with_decay


# -- descendants ---------------------------------------------------------------------------------------------


def test_the_descendant_of_the_auxiliary_s_depth_is_the_auxiliary_bit_for_bit(supernet):
    x = pictures()
    for arch in (supernet.space.smallest, supernet.space.largest):
        with torch.no_grad():
            expected = supernet(x, arch)
            model = descendant(supernet, arch["depth"])
            assert_equal(model(x), expected)
            assert_equal(supernet.extract(arch)(x), expected)
            plain = Supernet(depths(arch["depth"]), Slice()).eval()
            plain.load_shared_state(model.state_dict())
            assert_equal(plain(x, plain.space.largest), expected)


def test_training_a_layer_of_a_descendant_leaves_the_others_and_the_learngene(supernet):
    before = {name: t.detach().clone() for name, t in supernet.shared_state().items()}
    model = descendant(supernet, 8)
    tensors = layers(model)
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == 8
    values = [t.detach().clone() for t in tensors]
    with torch.no_grad():
        tensors[3].add_(1)
    changed = [not torch.equal(a, b) for a, b in zip(tensors, values, strict=True)]
    assert changed == [layer == 3 for layer in range(8)]
    assert all(torch.equal(before[name], t) for name, t in supernet.shared_state().items())


def test_narrower_layers_are_cut_from_both(rng):
    supernet = learngene(LinearExpansion(), 4, embed_dims=(8, 16), heads=(1, 2), mlp_ratios=(2.0, 4.0))
    for arch in supernet.space.archs(supernet.space.sample(6, rng)):
        x = pictures()
        with torch.no_grad():
            assert_equal(supernet(x, arch), supernet.extract(arch)(x), arch)


# -- fitting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 6, 12])
def test_least_squares_over_the_layers_recovers_base_and_slope(depth):
    supernet = learngene(LinearExpansion(), depth)
    fitted = supernet.scheme.fit(supernet.extract(supernet.space.largest).state_dict())
    assert fitted.keys() == supernet.shared_state().keys()
    for name, value in supernet.shared_state().items():
        torch.testing.assert_close(fitted[name], value.detach(), atol=1e-5, rtol=1e-4)


def test_a_fit_leaves_the_least_residual():
    supernet = learngene(LinearExpansion(), 5)
    plain = {
        name: torch.randn_like(t) for name, t in supernet.extract(supernet.space.largest).state_dict().items()
    }
    fitted = supernet.scheme.fit(plain)
    for leaf in ("attn.qkv.weight", "norm1.bias"):
        values = torch.stack([plain[f"blocks.{layer}.{leaf}"] for layer in range(5)]).double()
        line = torch.stack([torch.ones(5), torch.arange(5) / 5], dim=1).double()
        expected = torch.linalg.lstsq(line, values.flatten(1)).solution
        found = torch.stack([fitted[f"blocks.{kind}.{leaf}"] for kind in ("base", "slope")]).double()
        torch.testing.assert_close(found.flatten(1), expected, atol=1e-5, rtol=1e-4)


def test_one_layer_is_no_line():
    supernet = learngene(LinearExpansion(), 1)
    with pytest.raises(SpaceError, match="2 or more layers, not to 1"):
        supernet.scheme.fit(supernet.extract(supernet.space.largest).state_dict())


# -- what does not fit ---------------------------------------------------------------------------------------


def stack(choices: list[Choice], make: object) -> SearchSpace:
    return SearchSpace("stack", choices, make, input_shape=(4,))  # type: ignore[arg-type]


def test_layers_with_batch_norm_are_refused():
    def make(arch):
        blocks = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(arch["depth"])]
        return nn.Sequential(nn.Sequential(*blocks))

    space = stack([Choice("depth", (1, 2))], make)
    with pytest.raises(SpaceError, match="batch norm"):
        Supernet(space, LinearExpansion(layers="0.{}.*"))


def test_layers_of_different_shapes_are_refused():
    space = stack([Choice("width", (4, 8))], lambda arch: nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)))
    with pytest.raises(SpaceError, match=r"layers 0 and 1 of 'stack' differ in"):
        Supernet(space, LinearExpansion(layers="{}.*"))


def test_a_space_without_layers_is_refused():
    space = stack([Choice("width", (4,))], lambda arch: nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(SpaceError, match=r"has no layers 'blocks\.\{\}\.\*'"):
        Supernet(space, LinearExpansion())


def test_a_space_of_one_depth_needs_no_choice_for_it():
    space = stack([Choice("width", (4,))], lambda arch: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    supernet = Supernet(space, LinearExpansion(layers="{}.*"))
    first, second = supernet.extract(space.largest)
    torch.testing.assert_close(
        second.weight, supernet.shared["base.weight"] + supernet.shared["slope.weight"] / 2
    )
    assert torch.equal(first.weight, supernet.shared["base.weight"])
