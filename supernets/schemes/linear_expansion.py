"""Layers on a line: each tensor of layer l of L is base + (l / L) * slope, for any number of layers.

Source: TLEG, Xia et al., AAAI 2024, "Transformer as Linear Expansion of Learngene". The index runs from 0, as
in the published code: layer 0 is the base, and base + slope is never reached. Departures: one epsilon in all
layer norms (the published auxiliary and descendants differ in it, so that their outputs do); l and L are
arguments, never attributes of a shared module; the slope may go without weight decay.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import torch
from torch import Tensor

from search_spaces import Arch, SpaceError
from supernets.schemes.layered import BLOCKS, LayeredScheme
from supernets.schemes.sharing import Scheme, Shape
from supernets.tensors import TensorTree

BASE, SLOPE = "base", "slope"


class LinearExpansion(LayeredScheme):
    """Two stored layers, `blocks.base.*` and `blocks.slope.*`, make the layers of a network of any depth.

    d base = sum of d layer_l, d slope = sum of (l / L) d layer_l. At first the base is a fresh layer and the
    slope another one, with vectors (biases, norms) at zero. Where tensors are narrower in a subnet, base and
    slope are cut alike.

    Args:
        decay_slope: weight decay acts on the slope, as published. It pulls the layers together, which on
            small data is most of what it does.
        layers, depth, inner: as in `LayeredScheme`.
    """

    def __init__(
        self,
        *,
        decay_slope: bool = True,
        layers: str = BLOCKS,
        depth: str = "depth",
        inner: Scheme | None = None,
    ) -> None:
        super().__init__(layers=layers, depth=depth, inner=inner)
        self.decay_slope = decay_slope
        self._slopes: set[str] = set()

    def stored_layers(self) -> tuple[str | int, ...]:
        return (BASE, SLOPE)

    def undecayed(self) -> set[str]:
        return self.inner.undecayed() | (set() if self.decay_slope else self._slopes)

    def stored(self, plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        others, layers = self.split(plain)
        for name, base in layers[0].items():
            second = layers[min(1, len(layers) - 1)][name]
            self._slopes.add(self._put(others, name, base, second if base.dim() > 1 else second * 0))
        return others

    def fit(self, plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Base and slope by least squares over the plain network's layers, in float64.

        Raises:
            SpaceError: fewer than two layers, which do not make a line.
        """
        others, layers = self.split(plain)
        if len(layers) < 2:
            raise SpaceError(f"a line is fitted to 2 or more layers, not to {len(layers)}")
        at = torch.arange(len(layers), dtype=torch.float64) / len(layers)
        spread = at - at.mean()
        for name, first in layers[0].items():
            values = torch.stack([layer[name].double().cpu() for layer in layers])
            slope = torch.tensordot(spread, values, 1) / spread.square().sum()
            base = values.mean(dim=0) - at.mean() * slope
            self._put(others, name, base.to(first.dtype), slope.to(first.dtype))
        return others

    def take(self, name: str, shape: Shape, shared: TensorTree, arch: Arch) -> Tensor:
        part = self.part(name)
        if part is None:
            return self.inner.take(name, shape, shared, arch)
        base = self.inner.take(part.within(BASE), shape, shared, arch)
        if part.layer == 0:
            return base
        slope = self.inner.take(part.within(SLOPE), shape, shared, arch)
        exact = torch.promote_types(
            base.dtype, torch.float32
        )  # in half precision neighbours would round alike
        along = part.layer / self.depth_of(arch)
        return torch.add(base.to(exact), slope.to(exact), alpha=along).to(base.dtype)

    def touch(self, name: str, shape: Shape, masks: MutableMapping[str, Tensor | None], arch: Arch) -> None:
        part = self.part(name)
        for read in (name,) if part is None else (part.within(BASE), part.within(SLOPE))[: part.layer + 1]:
            self.inner.touch(read, shape, masks, arch)

    def _put(self, stored: dict[str, Tensor], name: str, base: Tensor, slope: Tensor) -> str:
        part = self.part(name)
        assert part is not None
        stored[part.within(BASE)], stored[part.within(SLOPE)] = base, slope
        return part.within(SLOPE)
