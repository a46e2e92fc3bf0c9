"""What a source delivers before it is resized, split and normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nas.data.pictures import Pictures
from nas.data.splits import Indices

# What the images show decides which changes keep a label:
#   things    photographs and the like, where left and right may be swapped
#   oriented  scenes with writing or signs, where they may not
#   strokes   bright characters on an empty ground, which may be turned a little
Subject = Literal["things", "oriented", "strokes"]


@dataclass(frozen=True, eq=False)
class Collection:
    """Labelled images of a source, in its own order."""

    name: str
    where: str  # names the source in errors
    classes: tuple[str, ...]
    labels: Indices  # [N], positions in `classes`
    content: Tensor | Pictures  # [N, C, H, W] uint8 or float32, or pictures still to be decoded
    channels: int
    size: int  # pixels, the default image size
    subject: Subject
    identity: str  # a digest that changes when the source's content does
    validation: Indices | None = None  # positions of a part that the source itself sets aside
    test: Indices | None = None
    photographs: bool = False  # a folder of photographs: ImageNet's mean and std
    varied: bool = False  # pictures of many shapes: large ones lose a margin before they are fitted
    other_files: int = 0
    notes: tuple[str, ...] = ()


def digest(*parts: bytes | np.ndarray | Sequence[str]) -> str:
    """A hex digest over byte strings, arrays (with shape and type) and lists of names."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype}{part.shape}".encode())
            total.update(np.ascontiguousarray(part).view(np.uint8).data)
        elif isinstance(part, bytes):
            total.update(len(part).to_bytes(8, "big") + part)
        else:
            for name in part:
                total.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return total.hexdigest()


def as_grey(images: Tensor) -> Tensor:
    """`images` [N, C, H, W] with one channel where three carry the same values, else as they are."""
    if images.shape[1] != 3:
        return images
    for block in images.split(1024):
        if not (torch.equal(block[:, 0], block[:, 1]) and torch.equal(block[:, 0], block[:, 2])):
            return images
    return images[:, :1].contiguous()
