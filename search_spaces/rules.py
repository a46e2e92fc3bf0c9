"""How a fused tensor shares its entries: which part of the shared tensor a smaller one takes.

A rule is data that a space states for a pattern of tensor names; only a supernet applies it. Without a rule a
tensor takes the leading entries of every axis, and a convolution's kernel its centre.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Rule(Protocol):
    """Takes the part of a shared tensor that has the wanted shape."""

    def __call__(self, shared: Tensor, shape: Sequence[int]) -> Tensor: ...


def leading(shared: Tensor, shape: Sequence[int]) -> Tensor:
    """The first entries along every axis, a view.

    Source: weight entanglement, Chen et al. 2021, arXiv:2107.00651.
    """
    for axis, size in enumerate(shape):
        if shared.shape[axis] != size:
            shared = shared.narrow(axis, 0, size)
    return shared


def centre(shared: Tensor, shape: Sequence[int]) -> Tensor:
    """The first entries along the two channel axes and the centre of the kernel behind them, a view.

    Source: elastic kernel size, Cai et al. 2020, arXiv:1908.09791, section 3.
    """
    for axis, size in enumerate(shape):
        whole = shared.shape[axis]
        if whole != size:
            shared = shared.narrow(axis, 0 if axis < 2 else (whole - size) // 2, size)
    return shared


@dataclass(frozen=True)
class heads:
    """`parts` tensors fused along the first axis (q, k, v), of which each shares its own leading entries.

    `{"*.attn.qkv.*": heads(3)}` for a [3 * heads * head_dim, in] weight and its bias: head h of every subnet
    is head h of the largest. A view when the first axis is whole, else a copy of three slices.
    """

    parts: int

    def __call__(self, shared: Tensor, shape: Sequence[int]) -> Tensor:
        shared = leading(shared, (shared.shape[0], *shape[1:]))
        if shared.shape[0] == shape[0]:
            return shared
        split = shared.unflatten(0, (self.parts, -1))
        return split.narrow(1, 0, shape[0] // self.parts).flatten(0, 1)


@dataclass(frozen=True)
class index_set:
    """Entries along one axis chosen by `pick(size) -> indices`; leading ones along the others. A copy."""

    axis: int
    pick: Callable[[int], Sequence[int]]

    def __call__(self, shared: Tensor, shape: Sequence[int]) -> Tensor:
        whole = [*shape[: self.axis], shared.shape[self.axis], *shape[self.axis + 1 :]]
        shared = leading(shared, whole)
        if shared.shape[self.axis] == shape[self.axis]:
            return shared
        chosen = torch.as_tensor(list(self.pick(shape[self.axis])), device=shared.device)
        return shared.index_select(self.axis, chosen)
