"""What a sharing scheme promises."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import torch
from torch import Tensor, nn

from search_spaces import Arch, SearchSpace
from supernets.tensors import TensorTree

Shape = tuple[int, ...]


class Scheme(nn.Module):
    """Says how each tensor of a subnet comes from the shared ones. The base class shares whole tensors.

    A scheme that changes another one holds it as `inner` and calls its methods: kernel transform over slices,
    a quantised version over either. A scheme may keep other tensors than the plain network's (`stored`) and
    may have parameters of its own, which train with the rest. It keeps no trace of the arch drawn last, so
    one scheme serves many subnets and threads at once.
    """

    def bind(self, space: SearchSpace, shapes: Mapping[str, set[Shape]]) -> None:
        """Called once, before anything else, with the shapes that each plain tensor can take."""

    def stored(self, plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors to share, by name, with initial values; `plain` has each tensor at its largest."""
        return dict(plain)

    def fit(self, plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors to share, by name, with the values that come nearest to the plain network `plain`.

        Where `stored` may make initial values of its own, this keeps what is there. `plain` may have more
        layers than the space where the scheme can make use of them.
        """
        return self.stored(plain)

    def undecayed(self) -> set[str]:
        """Names, as in `stored`, of matrices that weight decay shall leave alone."""
        return set()

    def take(self, name: str, shape: Shape, shared: TensorTree, arch: Arch) -> Tensor:
        """The tensor `name` of a subnet, of `shape`: a view of a shared tensor wherever one serves.

        Gradients flow from it into the shared tensors and the scheme's own parameters.

        Raises:
            SpaceError: the shared tensor is smaller than `shape`.
        """
        return shared[name]

    def touch(self, name: str, shape: Shape, masks: MutableMapping[str, Tensor | None], arch: Arch) -> None:
        """Marks the entries of the shared tensors that `take(name, shape, ..., arch)` reads.

        `masks` has a boolean tensor per shared tensor and per own parameter ("scheme." + its name), all False
        at first; an entry becomes True, or the whole mask None when every entry is read.
        """
        masks[name] = None


def fill(mask: Tensor, part: Tensor) -> None:
    """Sets `mask` where `part`, a view or copy of a tensor that counts mask's entries, points."""
    mask.view(-1)[part.reshape(-1)] = True


def counting(mask: Tensor) -> Tensor:
    """A tensor of the shape of `mask` whose entries are their own flat indices."""
    return torch.arange(mask.numel(), device=mask.device).view(mask.shape)
