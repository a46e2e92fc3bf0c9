"""The frozen teacher: the largest subnet as it was at one moment, kept on disk for an exact resume.

It runs in eval mode, with batch-norm statistics measured on a few training batches at that moment: the
running ones may mix all archs. (Once-for-All's code runs its teacher in train mode.) It sees images at its
own resolution, whatever that of its pupils.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from search_spaces.space import SearchSpace
from supernets.checkpoint import CheckpointError, load_tensors, save_tensors
from supernets.evaluate import calibrated, channels_last, resize_to
from supernets.supernet import Supernet

Teacher: TypeAlias = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] at the data's size -> logits [B, K]. Called without gradients."""

_BATCHES = 8  # whose statistics the teacher's batch normalisations take


class Frozen:
    """The largest network of a space with weights of its own, in eval mode. Nothing changes it."""

    def __init__(self, space: SearchSpace, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)
        self.shape = space.input_shape(space.largest)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of images of any size."""
        return self.module(channels_last(resize_to(x, self.shape)))


def freeze_largest(path: Path, supernet: Supernet, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Writes the largest subnet, calibrated on the first of `batches`, to `path`.

    Raises:
        OSError: not writable or disk full.
    """
    largest = supernet.space.largest
    images = [x for x, _ in islice(batches, _BATCHES)]
    module = calibrated(supernet, largest, images)
    save_tensors(path, _tensors(module), {"arch": largest.to_json(), "space": supernet.space.digest})


def load_frozen(path: Path, supernet: Supernet) -> Frozen:
    """The teacher that `freeze_largest` wrote for a supernet of this space, on the supernet's device.

    Raises:
        CheckpointError: it is missing, damaged or of another space.
    """
    values, meta = load_tensors(path)
    module = supernet.extract(supernet.space.largest)
    mine = _tensors(module)
    if meta.get("space") != supernet.space.digest or mine.keys() != values.keys():
        raise CheckpointError(f"{path} is the teacher of another search space than {supernet.space.name!r}")
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(values[name])
    return Frozen(supernet.space, module)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """A tied tensor once; a state_dict would name it twice, which a safetensors file refuses."""
    return dict(module.named_parameters()) | dict(module.named_buffers())
