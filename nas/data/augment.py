"""Random changes to training images that keep their label."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class BatchAugmentation:
    """Shifts, flips, turns and zooms, one draw per image, computed on a whole batch at once."""

    shift: int  # up to so many pixels each way
    padding: Literal["zero", "reflect"]  # what moves in at the border
    flip: bool  # mirror half of the images left to right
    rotation_deg: float = 0.0  # up to so many degrees each way
    zoom: float = 0.0  # scale factor between 1 - zoom and 1 + zoom

    def describe(self) -> dict[str, Any]:
        """The settings as JSON-able values."""
        return {"kind": "batch", **asdict(self)}

    def __call__(
        self, images: Tensor, rng: torch.Generator, first: int = 0, total: int | None = None
    ) -> Tensor:
        """Changed copies of `images` [B, C, H, W], on the same scale of values and the same device.

        As part of a batch of `total` from image `first` on they change as they would in the whole batch. The
        draws are made on the CPU, so that they are the same for every device.

        uint8 stays uint8 as long as pixels only move; turning and zooming interpolate and return float32.
        """
        if not len(images):
            return images
        if self.rotation_deg or self.zoom:
            return self._turned(images, rng, first, total)
        return self._moved(images, rng, first, total)

    def _moved(self, images: Tensor, rng: torch.Generator, first: int, total: int | None) -> Tensor:
        count, channels, height, width = images.shape
        drawn = count if total is None else total
        shift = min(self.shift, height - 1, width - 1)  # reflection cannot reach further than the image
        rows = torch.arange(height) + torch.randint(2 * shift + 1, (drawn, 1), generator=rng)
        columns = torch.arange(width) + torch.randint(2 * shift + 1, (drawn, 1), generator=rng)
        mirrored = torch.rand(drawn, 1, generator=rng) < 0.5 * self.flip
        columns = torch.where(mirrored, columns.flip(1), columns)
        rows, columns = rows[first : first + count], columns[first : first + count]
        rows, columns = rows.to(images.device), columns.to(images.device)
        if self.padding == "zero":
            images = F.pad(images, (shift,) * 4)
        else:
            rows, columns = _reflected(rows - shift, height), _reflected(columns - shift, width)
        # One gather over flat positions: a quarter of the time of indexing with four index tensors.
        flat = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).view(count, 1, height * width)
        moved = images.reshape(count, channels, -1).gather(2, flat.expand(-1, channels, -1))
        return moved.view(count, channels, height, width)

    def _turned(self, images: Tensor, rng: torch.Generator, first: int, total: int | None) -> Tensor:
        count, _, height, width = images.shape
        drawn, own = count if total is None else total, slice(first, first + count)
        draws = (2 * torch.rand(4, drawn, generator=rng) - 1)[:, own]  # in [-1, 1)
        angle = draws[0] * math.radians(self.rotation_deg)
        zoom = 1 / (1 + draws[1] * self.zoom)
        mirror = 1 - 2.0 * (torch.rand(drawn, generator=rng) < 0.5 * self.flip)[own]
        across = draws[2] * 2 * self.shift / width  # grid coordinates: the image spans 2
        down = draws[3] * 2 * self.shift / height
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        theta = torch.stack(
            [torch.stack([cos * mirror, -sin, across], 1), torch.stack([sin * mirror, cos, down], 1)], 1
        )
        grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
        border = "zeros" if self.padding == "zero" else "reflection"
        return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode=border, align_corners=False)


@dataclass(frozen=True)
class PictureAugmentation:
    """timm's training transform, one picture at a time: random crop, flip, RandAugment."""

    size: int  # pixels, the side of the result
    area: tuple[float, float]  # share of the picture's area that a crop covers
    flip: bool
    policy: str = "rand-m9-mstd0.5-inc1"  # timm's notation

    def describe(self) -> dict[str, Any]:
        """The settings as JSON-able values."""
        return {"kind": "picture", **asdict(self), "area": list(self.area)}

    def __call__(self, picture: Image.Image) -> Tensor:
        """A changed picture as uint8 [C, size, size]. Draws from the global generators."""
        changed = _timm_transform(self)(picture.convert("RGB"))
        return changed[:1] if picture.mode == "L" else changed


def _reflected(index: Tensor, length: int) -> Tensor:
    """Positions outside [0, length) mirrored at the first and the last one."""
    return (length - 1) - ((length - 1) - index.abs()).abs()


@cache
def _timm_transform(spec: PictureAugmentation) -> Callable[[Image.Image], Tensor]:
    from timm.data.transforms_factory import create_transform

    transform: Callable[[Image.Image], Tensor] = create_transform(
        spec.size,
        is_training=True,
        scale=spec.area,
        hflip=0.5 if spec.flip else 0.0,
        auto_augment=spec.policy,
        interpolation="bilinear",
        normalize=False,  # uint8 out: a quarter of the bytes between processes
    )
    return transform
