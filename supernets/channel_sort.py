"""Channel sorting: the most important channels of a width come first, before smaller widths open.

A channel's importance is the L1 norm of the weights that read it; one permutation per group of channels is
applied to every tensor that has them (`SearchSpace.channel_groups`). At full width every network computes
what it did before, up to the order of float sums.

Source: Cai et al. 2020, arXiv:1908.09791, section 3, "elastic width". Departure: the squeezed channels of a
squeeze-excite are sorted within what smaller widths have trained, like all others; the public code sorts
them across, so that a trained small network loses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, product
from typing import TypeAlias

import torch
from torch import Tensor, nn

from search_spaces.arch import Arch, Option
from search_spaces.channel_group import ChannelGroup
from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from supernets.supernet import Supernet

Permutations: TypeAlias = dict[str, list[tuple[int, Tensor]]]
"""By name as in `Supernet.shared_state`: axes, each with the old position of every new entry."""
_Shapes: TypeAlias = Callable[[Arch], Mapping[str, Sequence[int]]]


@dataclass(frozen=True)
class SortChannels:
    """`sort_channels` as an entry of a phase; `trained` is what the phases before it had open."""

    trained: Mapping[str, tuple[Option, ...] | int] = field(default_factory=lambda: {"*": 1})

    def __call__(self, supernet: Supernet) -> None:
        """Sorts in place."""
        sort_channels(supernet, self.trained)


@torch.no_grad()
def sort_channels(
    supernet: Supernet, trained: Mapping[str, Sequence[Option] | int] | None = None
) -> Permutations:
    """Sorts the shared weights in place, largest importance first; returns what moved where.

    trained: the part of the space that was trained already, as in `SearchSpace.restrict`; default the largest
    arch alone. Each of its widths stays the prefix that it is: channels move between two widths only, so
    every trained network still computes what it did.

    Raises:
        InputError: a tensor that the space declares is not shared under its name by this scheme.
    """
    state = supernet.shared_state()
    space = supernet.space.restrict(trained or {"*": 1})
    moved: Permutations = {}
    shapes = _shapes(space)
    for group in space.channel_groups:
        if missing := [name for name in group.tensors if name not in state]:
            raise InputError(
                f"channels cannot be sorted under scheme {type(supernet.scheme).__name__}: it does not share "
                f"{missing[0]!r} as it is; use slice or kernel_transform"
            )
        reader, axis = state[group.read_by], group.tensors[group.read_by]
        importance = reader.abs().sum([a for a in range(reader.dim()) if a != axis])
        order = _order(importance, _sizes(space, group, shapes))
        for name, axis in group.tensors.items():
            moved.setdefault(name, []).append((axis, order))
    for name, permutations in moved.items():
        state[name].copy_(permuted(state[name], permutations))
    return moved


def permuted(tensor: Tensor, permutations: Sequence[tuple[int, Tensor]]) -> Tensor:
    """A copy of `tensor` with the entries of each axis in their new places."""
    for axis, order in permutations:
        tensor = tensor.index_select(axis, order.to(tensor.device))
    return tensor


@torch.no_grad()
def permute_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, moved: Permutations) -> None:
    """The optimiser's state follows weights that `sort_channels` moved; `model` is the supernet.

    For a phase that keeps the optimiser of the one before. Counters stay.

    Raises:
        InputError: state that is neither a counter nor of its parameter's shape, which cannot follow.
    """
    for name, parameter in model.named_parameters():
        permutations = moved.get(name.removeprefix("shared."))
        for key, value in optimizer.state.get(parameter, {}).items() if permutations else ():
            if not isinstance(value, Tensor) or value.numel() <= 1:
                continue
            if value.shape != parameter.shape:
                raise InputError(
                    f"{key} of {type(optimizer).__name__} is {list(value.shape)} for {name} of "
                    f"{list(parameter.shape)}: it cannot follow sorted channels; begin with a new optimiser"
                )
            assert permutations is not None
            value.copy_(permuted(value, permutations))


def _order(importance: Tensor, sizes: Sequence[int]) -> Tensor:
    """The permutation that sorts each stretch between two of the ascending sizes."""
    edges = sorted({0, *sizes, len(importance)})
    return torch.cat([a + importance[a:b].argsort(descending=True, stable=True) for a, b in pairwise(edges)])


def _sizes(space: SearchSpace, group: ChannelGroup, shapes: _Shapes) -> list[int]:
    """The widths that the group's channels take in the space."""
    last = {choice.name: choice.options[-1] for choice in space.choices}
    deciding = [choice for choice in space.choices if choice.name in group.choices]
    sizes = set()
    for options in product(*(choice.options for choice in deciding)):
        arch = space.arch(last | dict(zip((c.name for c in deciding), options)))
        sizes.add(shapes(arch)[group.read_by][group.tensors[group.read_by]])
    return sorted(sizes)


def _shapes(space: SearchSpace) -> _Shapes:
    """Shapes of the tensors of an arch; groups ask for the same few archs."""

    @lru_cache(maxsize=16)
    def shapes(arch: Arch) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in space.skeleton(arch).named_parameters()}

    return shapes
