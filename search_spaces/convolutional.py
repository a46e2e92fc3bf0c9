"""What the convolutional spaces have in common: input sizes, conditions of blocks, first values."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from torch import nn

from search_spaces.choice import Choice
from search_spaces.errors import SpaceError
from search_spaces.space import RESOLUTION

SMALL_IMAGES = 96
"""Below so many pixels a space offers a shallower network whose stem keeps the resolution."""


def resolution_choice(name: str, image_size: int, resolutions: Sequence[int] | None) -> Choice:
    """The input sizes to choose from, up to `image_size`.

    By default smaller ones down to about 4/7 of it in steps of 32 (Once-for-All: 128 to 224 in steps of 4),
    for small images down to half in steps of 4.

    Raises:
        SpaceError: they do not end at `image_size`, or begin below 8.
    """
    sizes = tuple(sorted(resolutions or _default_resolutions(image_size)))
    if max(sizes) != image_size or min(sizes) < 8:
        raise SpaceError(
            f"resolutions {sizes} of {name} must start at 8 or more and end at image_size {image_size}"
        )
    return Choice(RESOLUTION, sizes)


def check_sizes(
    name: str, depths: Sequence[int], classes: int, channels: int, width: float, kernels: Sequence[int] = (3,)
) -> None:
    """Returns where a network of these sizes exists.

    Raises:
        SpaceError: it does not.
    """
    wrong = min(depths) < 1 or min(classes, channels) < 1 or any(k % 2 == 0 for k in kernels)
    if wrong or not (isfinite(width) and width > 0):
        raise SpaceError(
            f"{name} needs depths, classes and channels of at least 1, odd kernels and a width above 0, "
            f"not depths {tuple(depths)}, classes {classes}, channels {channels}, kernels {tuple(kernels)}, "
            f"width {width}"
        )


def in_force(choice: str, depths: Sequence[int], block: int) -> dict[str, list[int]] | None:
    """The condition of the choices of block number `block`, from 1, of a stage as deep as `choice` says."""
    return {choice: [d for d in depths if d >= block]} if block > min(depths) else None


def initialise(network: nn.Module) -> None:
    """He initialisation over the fan out (He et al. 2015), from torch's default generator."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)


def _default_resolutions(image_size: int) -> list[int]:
    step, share = (4, 1 / 2) if image_size < SMALL_IMAGES else (32, 4 / 7)
    least = max(8, int(image_size * share))
    return [r for r in range(image_size % step, image_size + 1, step) if r >= least] or [image_size]
