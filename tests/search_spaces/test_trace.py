"""What the trace counts, against PyTorch's FLOP counter, real parameters and every tensor written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nas.resolve import names, resolve
from search_spaces import SearchSpace, mobilenet_v3
from search_spaces.trace import trace


def flop_counter_macs(module: nn.Module, x: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(x)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


def on_meta(make: Any, *shape: int) -> tuple[nn.Module, Tensor]:
    with torch.device("meta"):
        return make(), torch.empty(shape)


def test_costs_of_every_space_are_those_that_pytorch_counts(any_space, rng):
    population = any_space.sample(8, rng)
    costs = any_space.costs(population)
    for i, arch in enumerate(any_space.archs(population)):
        with torch.device("meta"):
            module = any_space.build(arch)
        assert costs.macs[i] == flop_counter_macs(module, any_space.example(arch, device="meta"))
        assert costs.params[i] == sum(p.numel() for p in module.parameters())
        tensors = [*module.parameters(), *module.buffers()]
        assert costs.weight_bytes[i] == sum(t.numel() * t.element_size() for t in tensors)
        layers = any_space.layers(arch)
        assert costs.activation_bytes[i] == sum(layer.output_bytes for layer in layers)
        assert costs.macs[i] == sum(layer.macs for layer in layers)


@pytest.mark.parametrize("name", names("space"))
def test_the_ends_of_every_space_at_full_size(name):
    space = resolve("space", name)()
    for arch in (space.smallest, space.largest):
        counted = flop_counter_macs(space.skeleton(arch), space.example(arch, device="meta"))
        assert sum(layer.macs for layer in space.layers(arch)) == counted


def test_macs_of_the_published_network():
    """MobileNetV3-Large at 224 pixels; timm's has the kernels, widths and expansions of the paper."""
    timm = pytest.importorskip("timm")
    module, x = on_meta(lambda: timm.create_model("mobilenetv3_large_100"), 1, 3, 224, 224)
    layers = trace(module, x)
    assert sum(layer.macs for layer in layers) == flop_counter_macs(module, x)
    assert sum(layer.macs for layer in layers) == pytest.approx(219e6, rel=0.02)  # table 3: 219 M
    assert sum(layer.params for layer in layers) == pytest.approx(5.4e6, rel=0.02)  # table 3: 5.4 M


class _Written(TorchDispatchMode):
    """Sums the bytes of the first result of every operator that is not a view."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        view = returns and returns[0].alias_info is not None and not returns[0].alias_info.is_write
        if not view:
            first = out if isinstance(out, Tensor) else out[0]
            self.bytes += first.numel() * first.element_size()
        return out


def test_activation_bytes_are_what_the_operators_write(rng):
    space = mobilenet_v3.space(image_size=32, classes=10)
    for arch in space.archs(space.sample(5, rng)):
        counted = sum(layer.output_bytes for layer in space.layers(arch))
        x = space.example(arch, device="meta")
        module = space.skeleton(arch).eval()
        with torch.no_grad(), _Written() as written:
            module(x)
        assert counted == written.bytes


class _Branches(nn.Module):
    """A convolution whose result is used twice, a fused attention, a view, a copy and a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5, bias=False)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.conv(x))
        tokens = y.flatten(2).transpose(1, 2)[:, None]
        z = F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0] * self.scale
        return torch.cat([self.head(z), self.head(z)], dim=1)


def test_layers_say_what_ran_where():
    module, x = on_meta(_Branches, 1, 2, 8, 8)
    layers = trace(module, x)
    assert [(layer.name, layer.kind, layer.op) for layer in layers] == [
        ("conv", "conv2d", "conv2d"),
        ("", "attention", "scaled_dot_product_attention"),
        ("", "elementwise", "mul"),
        ("head", "linear", "linear"),
        ("head", "linear", "linear"),
        ("", "copy", "cat"),
    ]
    conv, attention, mul, first, second, cat = layers
    assert conv.inputs == ((1, 2, 8, 8),)
    assert conv.output == (1, 4, 4, 4)
    assert (conv.weight, conv.kernel, conv.stride, conv.groups) == ((4, 1, 3, 3), (3, 3), (2, 2), 2)
    assert conv.macs == 4 * 4 * 4 * 9
    assert (conv.params, conv.weight_bytes) == (4 * 9 + 4, 4 * (4 * 9 + 4))
    assert (conv.input_bytes, conv.output_bytes) == (4 * 128, 4 * 64)
    assert attention.macs == 16 * 16 * 4 * 2
    assert (attention.params, mul.params) == (4, 0)  # those of a module are at the first that it ran
    assert first.macs == second.macs == 16 * 4 * 5
    assert (first.params, second.params) == (20, 0)  # a module that runs twice has its weights once
    assert [layer.sources for layer in layers] == [(0,), (1, 1, 1), (1,), (1,), (2,), (2, 1)]
    assert cat.output_bytes == 4 * 32 * 5
    assert sum(layer.macs for layer in layers) == flop_counter_macs(module, x)


class _Contractions(nn.Module):
    """Ways to multiply matrices that are no layer of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.transposed = nn.ConvTranspose2d(3, 5, 3, stride=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.weight = nn.Parameter(torch.zeros(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.transposed(x).flatten(2)[..., :8]
        y = torch.einsum("bij,jk->bik", y, self.weight)
        y = y + self.attention(y, y, y)[0]
        y = y + self.attention(y, y, y, need_weights=False)[0]
        y = torch.baddbmm(y, y @ y.transpose(1, 2), y)
        return torch.addmm(y[0], y[0], self.weight)


def test_contractions_outside_layers_are_counted():
    """Einsum, transposed convolution and addmm once counted as nothing."""
    module, x = on_meta(_Contractions, 1, 3, 8, 8)
    layers = trace(module, x)
    assert sum(layer.macs for layer in layers) == flop_counter_macs(module, x)
    assert sum(layer.params for layer in layers) == sum(p.numel() for p in module.parameters())
    assert {layer.op for layer in layers if layer.macs} == {
        "conv_transpose2d",
        "einsum",
        "multi_head_attention_forward",
        "matmul",
        "baddbmm",
        "addmm",
    }


def test_the_encoder_layer_of_pytorch_is_counted():
    module, x = on_meta(lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 1, 10, 16)
    layers = trace(module, x)
    assert sum(layer.macs for layer in layers) == flop_counter_macs(module, x)
    assert sum(layer.params for layer in layers) == sum(p.numel() for p in module.parameters())


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("table", torch.zeros(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device) + 1
        return self.head(self.embed(positions)[None])


def test_tied_parameters_count_once():
    module, x = on_meta(_Tied, 1, 7)
    layers = trace(module, x)
    assert sum(layer.params for layer in layers) == 44
    assert sum(layer.weight_bytes for layer in layers) == 44 * 4 + 3 * 4


def test_a_second_trace_says_the_same():
    """Remembered results once lost their type and stride: indices became floats, views became copies."""

    class Strided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = F.silu(x.transpose(1, 2) * 3.25)
            return y.transpose(1, 2).reshape(1, -1)

    for make, shape in ((_Tied, (1, 7)), (Strided, (1, 5, 6)), (_Branches, (1, 2, 8, 8))):
        module, x = on_meta(make, *shape)
        first = trace(module, x)
        assert trace(module, x) == first
        assert not any(layer.op == "reshape" for layer in first)


def test_tracing_leaves_the_module_and_the_random_state_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))
    special = module[3].forward
    module[3].forward = special  # an instance that has a forward of its own keeps it
    x = torch.randn(2, 1, 8, 8)
    expected = module.eval()(x)
    attributes = [set(child.__dict__) for child in module.modules()]
    state = torch.get_rng_state()
    trace(module.to("cpu"), x)
    assert torch.equal(torch.get_rng_state(), state)
    assert [set(child.__dict__) for child in module.modules()] == attributes
    assert module[3].__dict__["forward"] is special
    assert torch.equal(module(x), expected)


def test_a_forward_that_raises_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 6)).to("meta")
    with pytest.raises(RuntimeError):
        trace(module, torch.empty(1, 3, device="meta"))
    assert all("forward" not in child.__dict__ for child in module.modules())


def test_in_place_operations_chain():
    module, x = on_meta(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Hardswish(True)), 1, 1, 4, 4
    )
    layers = trace(module, x)
    assert [layer.kind for layer in layers] == ["conv2d", "activation", "activation"]
    assert [layer.sources for layer in layers] == [(0,), (1,), (1,)]


def test_layers_of_a_space_are_remembered(any_space):
    assert any_space.layers(any_space.largest) is any_space.layers(any_space.largest)


def test_the_width_of_the_output_is_the_number_of_classes(any_space):
    assert any_space.classes == 10


def test_a_space_of_a_module_without_images():
    space = SearchSpace("mlp", [], lambda arch: nn.Linear(7, 3), input_shape=(7,))
    assert space.costs(space.index([{}])).macs.tolist() == [21]
