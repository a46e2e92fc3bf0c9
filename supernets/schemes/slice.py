"""Sharing by slices: a smaller tensor is a part of the larger one."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from fnmatch import fnmatchcase

from torch import Tensor

from search_spaces import Arch, SearchSpace, SpaceError, centre, leading
from search_spaces.rules import Rule
from supernets.schemes.sharing import Scheme, Shape, counting, fill
from supernets.tensors import TensorTree


class Slice(Scheme):
    """Each tensor of a subnet is the leading part of the shared one, a kernel its centre.

    Where the space names a rule for a tensor (`SearchSpace.rules`), the rule decides. Source: weight
    entanglement, Chen et al. 2021, arXiv:2107.00651; elastic width and depth, Cai et al. 2020,
    arXiv:1908.09791.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rules: dict[str, Rule] = {}

    def bind(self, space: SearchSpace, shapes: Mapping[str, set[Shape]]) -> None:
        for name, sizes in shapes.items():
            default: Rule = centre if len(next(iter(sizes))) > 2 else leading
            self._rules[name] = next(
                (rule for pattern, rule in space.rules.items() if fnmatchcase(name, pattern)), default
            )

    def take(self, name: str, shape: Shape, shared: TensorTree, arch: Arch) -> Tensor:
        whole = shared[name]
        if whole.shape == shape:
            return whole
        for axis, (has, wants) in enumerate(zip(whole.shape, shape, strict=False)):
            if wants > has:
                raise SpaceError(
                    f"weight {name!r} is {list(whole.shape)} shared but {list(shape)} in the subnet: "
                    f"axis {axis} would grow from {has} to {wants}"
                )
        if whole.dim() != len(shape):
            raise SpaceError(
                f"weight {name!r} is {list(whole.shape)} shared but {list(shape)} in the subnet: "
                "a rule in SearchSpace.rules must say how it is shared"
            )
        return self._rules[name](whole, shape)

    def touch(self, name: str, shape: Shape, masks: MutableMapping[str, Tensor | None], arch: Arch) -> None:
        mask = masks[name]
        if mask is None:
            return
        if mask.shape == shape:
            masks[name] = None
        else:
            fill(mask, self._rules[name](counting(mask), shape))
