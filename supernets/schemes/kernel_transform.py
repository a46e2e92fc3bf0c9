"""Elastic kernels: a small kernel is a learned linear image of the centre of the next larger one."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import Arch, SearchSpace, centre
from supernets.schemes.sharing import Scheme, Shape
from supernets.schemes.slice import Slice
from supernets.tensors import TensorTree


class KernelTransform(Scheme):
    """Once-for-All's kernels: W5 = M75 centre(W7), W3 = M53 centre(W5), per layer, shared by all channels.

    The matrices start at the identity, where this is the plain centre crop. The chain runs over the kernel
    sizes that the space offers for a layer; layers with one size, and all other tensors, are the inner
    scheme's business. Own parameters: `matrices.<tensor name>.<from>to<to>`, [to^2, to^2].

    Source: Cai et al. 2020, arXiv:1908.09791, section 3, "elastic kernel size". Deviation: none; the matrices
    keep training after the kernel stage, as in the public code (the paper freezes them).
    """

    def __init__(self, inner: Scheme | None = None) -> None:
        super().__init__()
        self.inner = inner or Slice()
        self.matrices = TensorTree()
        self._sizes: dict[str, list[int]] = {}

    def bind(self, space: SearchSpace, shapes: Mapping[str, set[Shape]]) -> None:
        self.inner.bind(space, shapes)
        for name, seen in shapes.items():
            sizes = sorted({shape[-1] for shape in seen if len(shape) == 4 and shape[-1] == shape[-2]})
            if len(sizes) > 1:
                self._sizes[name] = sizes
                for small, large in pairwise(sizes):
                    self.matrices.put(f"{name}.{large}to{small}", nn.Parameter(torch.eye(small * small)))

    def stored(self, plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.inner.stored(plain)

    def take(self, name: str, shape: Shape, shared: TensorTree, arch: Arch) -> Tensor:
        sizes = self._sizes.get(name)
        if sizes is None:
            return self.inner.take(name, shape, shared, arch)
        weight = self.inner.take(name, (*shape[:2], sizes[-1], sizes[-1]), shared, arch)
        for small, large in self._steps(sizes, shape[-1]):
            crop = centre(weight, (*shape[:2], small, small))
            matrix = self.matrices[f"{name}.{large}to{small}"]
            weight = F.linear(crop.reshape(*shape[:2], small * small), matrix).view(crop.shape)
        return weight

    def touch(self, name: str, shape: Shape, masks: MutableMapping[str, Tensor | None], arch: Arch) -> None:
        sizes = self._sizes.get(name)
        steps = self._steps(sizes, shape[-1]) if sizes else []
        first = steps[0][0] if steps else shape[-1]  # the crop that reads the shared kernel
        self.inner.touch(name, (*shape[:2], first, first) if sizes else shape, masks, arch)
        for (small, large), (after, _) in pairwise([*steps, (shape[-1], 0)]):
            matrix = f"scheme.matrices.{name}.{large}to{small}"
            mask = masks[matrix]
            if after == small:
                masks[matrix] = None
            elif mask is not None:  # a row makes one entry, and the next step crops the outer ones
                rows = centre(torch.arange(small * small).view(1, 1, small, small), (1, 1, after, after))
                mask[rows.flatten().to(mask.device)] = True

    @staticmethod
    def _steps(sizes: list[int], wanted: int) -> list[tuple[int, int]]:
        """(smaller, larger) sizes from the largest kernel down to the wanted one."""
        return [(s, l) for s, l in zip(reversed(sizes[:-1]), reversed(sizes[1:]), strict=True) if s >= wanted]
