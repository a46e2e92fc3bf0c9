"""Stages of a network share one layer each: a learngene from which networks of any depth are made.

Source: SWS, Xia et al., IJCAI 2024, "Exploring Learngene via Stage-wise Weight Sharing for Initializing
Variable-sized Models". Departures: the published code gives the stages of a descendant as explicit lists;
here any depth has one by a rule, and lists can be given as well. The layer's number is an argument of `take`,
never an attribute that a forward pass changes, so subnets of several depths can be alive at once.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from search_spaces import Arch, SpaceError
from supernets.schemes.layered import BLOCKS, LayeredScheme
from supernets.schemes.sharing import Scheme, Shape
from supernets.tensors import TensorTree

STAGES = (3, 3, 4, 3, 3)  # of the published auxiliary of 16 layers


class StageShared(LayeredScheme):
    """Layer l of a network of depth L is the instance `sources(stages, L)[l]`; each stage has one instance.

    Instance s is stored as layer s of the plain network: `blocks.2.attn.qkv.weight` is that of the third
    stage. The gradient of an instance is the sum of the gradients of its layers.

    Args:
        stages: how often the auxiliary network repeats each instance; one number makes a fully tied network,
            as many ones as layers a plain one.
        maps: lists of instances for depths that the rule shall not decide, one each, as in
            `[[0, 0, 1, 1, 2, 2]]` for depth 6.
        layers, depth, inner: as in `LayeredScheme`.

    Raises:
        SpaceError: counts below 1, or a list that is not a map.
    """

    def __init__(
        self,
        stages: Sequence[int] = STAGES,
        maps: Sequence[Sequence[int]] = (),
        *,
        layers: str = BLOCKS,
        depth: str = "depth",
        inner: Scheme | None = None,
    ) -> None:
        super().__init__(layers=layers, depth=depth, inner=inner)
        if isinstance(stages, int) or not stages or not all(type(r) is int and r >= 1 for r in stages):
            raise SpaceError(
                f"stages = {stages!r}: a list of how often each stage's layer is used, each >= 1"
            )
        self.stages = tuple(stages)
        self._maps = {len(sources): tuple(sources) for sources in maps}
        for sources in self._maps.values():
            _check_map(sources, len(self.stages))

    def stored_layers(self) -> tuple[str | int, ...]:
        return tuple(range(len(self.stages)))

    def sources(self, depth: int) -> tuple[int, ...]:
        """The instance of each layer of a network of that depth."""
        return self._maps.get(depth) or sources(self.stages, depth)

    def stored(self, plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        others, layers = self.split(plain)
        return others | {
            self._instance(name, s): tensor
            for s in range(len(self.stages))
            for name, tensor in layers[min(s, len(layers) - 1)].items()
        }

    def fit(self, plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each instance is the mean of its layers, nearest to them all; without any, the closest layer."""
        others, layers = self.split(plain)
        of = self.sources(len(layers))
        for s in range(len(self.stages)):
            chosen = [layer for layer, source in zip(layers, of, strict=True) if source == s]
            nearest = min(range(len(of)), key=lambda layer: abs(of[layer] - s))
            for name in layers[0]:
                values = [layer[name] for layer in chosen or [layers[nearest]]]
                others[self._instance(name, s)] = torch.stack(values).mean(dim=0)
        return others

    def take(self, name: str, shape: Shape, shared: TensorTree, arch: Arch) -> Tensor:
        return self.inner.take(self._source(name, arch), shape, shared, arch)

    def touch(self, name: str, shape: Shape, masks: MutableMapping[str, Tensor | None], arch: Arch) -> None:
        self.inner.touch(self._source(name, arch), shape, masks, arch)

    def _source(self, name: str, arch: Arch) -> str:
        part = self.part(name)
        return part.within(self.sources(self.depth_of(arch))[part.layer]) if part else name

    def _instance(self, name: str, s: int) -> str:
        part = self.part(name)
        assert part is not None
        return part.within(s)


@cache
def sources(stages: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """The stage of each of `depth` layers: non-decreasing, and every stage at least once where there is room.

    The layers are distributed in proportion to `stages` by largest remainder, at least one each; ties go to
    the earlier stage. With fewer layers than stages, the stages at evenly spaced positions are kept, the
    first and the last among them. `depth = sum(stages)` gives the auxiliary's own map.
    """
    if depth < 1:
        raise SpaceError(f"depth = {depth}: a network has at least 1 layer")
    count, total = len(stages), sum(stages)
    if depth < count:
        if depth == 1:
            return (0,)
        return tuple((2 * i * (count - 1) + depth - 1) // (2 * (depth - 1)) for i in range(depth))
    layers = [max(1, depth * r // total) for r in stages]
    # In integers, so that no rounding decides a tie: stage s lacks depth * r_s / total - its layers.
    while sum(layers) < depth:
        s = max(range(count), key=lambda s: (depth * stages[s] - total * layers[s], -s))
        layers[s] += 1
    while sum(layers) > depth:
        s = max(
            (s for s in range(count) if layers[s] > 1),
            key=lambda s: (total * layers[s] - depth * stages[s], s),
        )
        layers[s] -= 1
    return tuple(s for s in range(count) for _ in range(layers[s]))


def _check_map(given: tuple[int, ...], count: int) -> None:
    steps = [b - a for a, b in pairwise(given)]
    if not given or any(type(s) is not int or not 0 <= s < count for s in given) or min(steps, default=0) < 0:
        raise SpaceError(
            f"map {list(given)} is not a list of stages from 0 to {count - 1} that never goes back"
        )
    if len(given) >= count and len(set(given)) < count:
        left_out = next(s for s in range(count) if s not in given)
        raise SpaceError(f"map {list(given)} leaves out stage {left_out}, for which it has room")
