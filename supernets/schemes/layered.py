"""What schemes have in common that make the layers of a network of any depth out of a few stored tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from typing import NamedTuple

from torch import Tensor

from search_spaces import Arch, SearchSpace, SpaceError
from supernets.schemes.sharing import Scheme, Shape
from supernets.schemes.slice import Slice

BLOCKS = "blocks.{}.*"  # as timm names them


class LayerTensor(NamedTuple):
    """The name of a tensor of a layer, taken apart at the layer's number."""

    before: str
    layer: int
    after: str

    def within(self, stored: str | int) -> str:
        """The name of the tensor that stands in the place of this one in the stored layer `stored`."""
        return f"{self.before}{stored}{self.after}"


class LayeredScheme(Scheme):
    """The base of such schemes: finds the layers by name and tells the depth of an arch.

    What is stored does not depend on the depth, so the tensors of one supernet load into that of another with
    the same layers and any other depths. Tensors outside the layers are the inner scheme's business, which
    also cuts narrower layers out of the stored ones.

    Args:
        layers: pattern of the names of the layers' tensors, with {} in the place of the layer's number.
        depth: the choice that says how many layers there are; a space without it has one depth.
        inner: how tensors are shared otherwise; default `Slice`.
    """

    def __init__(self, *, layers: str, depth: str, inner: Scheme | None) -> None:
        super().__init__()
        self.inner = inner or Slice()
        before, hole, after = layers.partition("{}")
        if not hole or "{}" in after:
            raise SpaceError(f"layers = {layers!r} needs one {{}} for the layer's number, as in {BLOCKS!r}")
        self._pattern = re.compile(f"({re.escape(before)})([0-9]+)({translate(after)})")
        self._layers = layers
        self._depth = depth
        self._count = 0

    def stored_layers(self) -> tuple[str | int, ...]:
        """What the stored layers are called, in order."""
        raise NotImplementedError

    def bind(self, space: SearchSpace, shapes: Mapping[str, set[Shape]]) -> None:
        found = {name: part for name in shapes if (part := self.part(name))}
        members: dict[int, dict[str, Shape]] = {}
        for name, part in found.items():
            members.setdefault(part.layer, {})[part.after] = tuple(map(max, zip(*shapes[name], strict=True)))
        if sorted(members) != list(range(len(members))) or not members:
            raise SpaceError(
                f"{space.name!r} has no layers {self._layers!r} numbered from 0, which this scheme shares"
            )
        for layer, tensors in members.items():
            if tensors != members[0]:
                odd = sorted(tensors.items() ^ members[0].items())[0][0]
                raise SpaceError(
                    f"layers 0 and {layer} of {space.name!r} differ in {odd.lstrip('.')!r}: layers that are "
                    "made from common tensors need the same tensors of the same largest shapes"
                )
        self._count = len(members)
        bound = {name: sizes for name, sizes in shapes.items() if name not in found}
        for name, part in found.items():
            for stored in self.stored_layers():
                bound.setdefault(part.within(stored), set()).update(shapes[name])
        self.inner.bind(space, bound)

    def part(self, name: str) -> LayerTensor | None:
        """The layer's tensor that `name` means; None for all others."""
        match = self._pattern.fullmatch(name)
        return LayerTensor(match[1], int(match[2]), match[3]) if match else None

    def depth_of(self, arch: Arch) -> int:
        """How many layers the network of `arch` has."""
        return arch.integer(self._depth) if self._depth in arch else self._count

    def split(self, plain: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """A plain network's other tensors, and those of each layer by their name in layer 0.

        Raises:
            SpaceError: a layer with a buffer, such as batch-norm statistics, which no scheme can share.
        """
        others: dict[str, Tensor] = {}
        layers: dict[int, dict[str, Tensor]] = {}
        for name, tensor in plain.items():
            part = self.part(name)
            if part is None:
                others[name] = tensor
            elif not tensor.is_floating_point() or name.endswith((".running_mean", ".running_var")):
                raise SpaceError(
                    f"{name} is no weight: layers with batch norm cannot be made from common ones"
                )
            else:
                layers.setdefault(part.layer, {})[part.within(0)] = tensor
        return others, [layers[number] for number in sorted(layers)]
