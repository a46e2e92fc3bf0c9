"""Which layers of real modules become one kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.fusion import Kernel, kernels
from search_spaces.trace import trace


def ops(module: nn.Module, *shape: int) -> list[tuple[str, ...]]:
    return [tuple(layer.op for layer in k.layers) for k in fused(module, *shape)]


def fused(module: nn.Module, *shape: int) -> tuple[Kernel, ...]:
    return kernels(trace(module.to("meta"), torch.zeros(shape, device="meta")))


class Residual(nn.Module):
    """Two convolutions and an identity shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm_a(self.a(x)))
        return torch.relu(x + self.norm_b(self.b(y)))


class SqueezeExcite(nn.Module):
    """A convolution whose channels are scaled by a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return x * gate


class TwoReaders(nn.Module):
    """The convolution's result is needed in memory: the activation may not swallow it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.relu(y) + y


def test_convolution_norm_activation_is_one_kernel() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish())
    assert ops(chain, 1, 3, 8, 8) == [("conv2d", "batch_norm", "hardswish")]


def test_residual_addition_joins_the_convolution_before_it() -> None:
    (first, second) = fused(Residual(), 1, 8, 4, 4)
    assert [layer.op for layer in first.layers] == ["conv2d", "batch_norm", "relu"]
    assert [layer.kind for layer in second.layers] == ["conv2d", "batch_norm", "elementwise", "activation"]
    image = 8 * 4 * 4 * 4  # bytes
    assert first.activation_bytes == 2 * image  # in and out
    assert second.activation_bytes == 3 * image  # its input, the shortcut, and out


def test_gate_of_a_squeeze_excite_does_not_join_the_narrow_convolution() -> None:
    found = fused(SqueezeExcite(), 1, 8, 4, 4)
    assert [k.lead.kind for k in found] == ["conv2d", "pool", "conv2d", "conv2d", "elementwise"]
    assert [len(k.layers) for k in found] == [2, 1, 2, 2, 1]


def test_a_result_with_two_readers_is_not_swallowed() -> None:
    found = fused(TwoReaders(), 1, 8, 4, 4)
    assert [[layer.kind for layer in k.layers] for k in found] == [["conv2d"], ["activation", "elementwise"]]


def test_layer_norm_stands_alone() -> None:
    block = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4))
    assert ops(block, 1, 5, 8) == [("linear",), ("layer_norm",), ("gelu",), ("linear",)]


def test_every_layer_is_in_exactly_one_kernel_and_sums_are_kept() -> None:
    layers = trace(SqueezeExcite().to("meta"), torch.zeros(1, 8, 4, 4, device="meta"))
    found = kernels(layers)
    assert [layer for kernel in found for layer in kernel.layers] == list(layers)
    assert sum(k.macs for k in found) == sum(layer.macs for layer in layers)
    assert sum(k.weight_bytes for k in found) == sum(layer.weight_bytes for layer in layers)
