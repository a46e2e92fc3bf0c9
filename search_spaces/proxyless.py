"""ProxylessNAS with elastic kernel, depth, expansion and resolution: a space of Once-for-All.

Inverted residuals with ReLU6 and without squeeze-excite. Five stages of two to four blocks and a last block,
each block with its own kernel and expansion: 9 * 7371^5 networks per resolution. Source: Cai et al. 2020,
arXiv:1908.09791, section 4, over Cai et al. 2019, arXiv:1812.00332; blocks from timm.

Deviations: the last normalisation of a residual block starts at zero (Goyal et al. 2017). Images smaller than
96 pixels get a network of three stages whose stem keeps the resolution, below 24 pixels a narrow one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.layers import BatchNormAct2d, make_divisible
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from search_spaces.arch import Arch
from search_spaces.channel_group import ChannelGroup, inverted_residual
from search_spaces.choice import Choice
from search_spaces.convolutional import (
    SMALL_IMAGES,
    check_sizes,
    in_force,
    initialise,
    resolution_choice,
)
from search_spaces.skeleton import remembered
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class Layout:
    """The fixed part of the network, before the width multiplier."""

    stem: int
    stem_stride: int
    first: int  # channels after the first block, which is fixed
    widths: tuple[int, ...]  # channels of each stage
    strides: tuple[int, ...]
    last: int  # channels after the last block, whose kernel and expansion are open
    features: int


IMAGENET = Layout(32, 2, 16, (24, 40, 80, 96, 192), (2, 2, 2, 1, 2), 320, 1280)
SMALL = Layout(16, 1, 16, (16, 24, 40), (2, 2, 2), 80, 320)
TINY = Layout(8, 1, 8, (8, 8, 16), (2, 2, 1), 24, 64)


def space(
    *,
    classes: int = 1000,
    channels: int = 3,
    image_size: int = 224,
    width: float | None = None,
    depths: Sequence[int] | None = None,
    expands: Sequence[int] | None = None,
    kernels: Sequence[int] = (3, 5, 7),
    resolutions: Sequence[int] | None = None,
    dropout: float = 0.1,
) -> SearchSpace:
    """ProxylessNAS for `classes` classes and images of `channels` x `image_size` x `image_size`.

    Args:
        width: multiplies all channels; default 1.3 as in the paper, and 1.0 below 96 pixels.
        depths: blocks per stage to choose from; default 2 to 4, and 1 to 4 below 96 pixels.
        expands: expansion ratios per block; default 3, 4 and 6, and 1, 2 and 4 below 96 pixels.
        kernels: depthwise kernels per block, odd.
        resolutions: input sizes to choose from; see `convolutional.resolution_choice`.
        dropout: before the classifier, in training.

    Raises:
        SpaceError: sizes that make no network.
    """
    small = image_size < SMALL_IMAGES
    layout = IMAGENET if not small else SMALL if image_size >= 24 else TINY
    factor = (1.0 if small else 1.3) if width is None else width
    depths = tuple(depths or ((1, 2, 3, 4) if small else (2, 3, 4)))
    expands = tuple(expands or ((1, 2, 4) if small else (3, 4, 6)))
    check_sizes("proxyless", depths, classes, channels, factor, kernels)
    resolution = resolution_choice("proxyless", image_size, resolutions)
    choices = [resolution]
    groups: list[ChannelGroup] = []
    last = len(layout.widths) + 1
    for s in range(1, last + 1):
        depth = f"stage{s}.depth"
        if s < last:
            choices.append(Choice(depth, depths))
        for b in range(1, max(depths) + 1 if s < last else 2):
            block, when = f"stage{s}.block{b}", in_force(depth, depths, b)
            choices.append(Choice(f"{block}.kernel", tuple(kernels), when=when))
            choices.append(Choice(f"{block}.expand", expands, when=when))
            groups += inverted_residual(f"blocks.{s}.{b - 1}", False, (f"{block}.expand",))

    def build(arch: Arch) -> nn.Module:
        return Proxyless(arch, layout, factor, channels, classes, dropout)

    return SearchSpace(
        "proxyless",
        choices,
        build,
        input_shape=(channels, image_size, image_size),
        channel_groups=groups,
        settings={
            "classes": classes,
            "channels": channels,
            "image_size": image_size,
            "width": factor,
            "depths": list(depths),
            "expands": list(expands),
            "kernels": list(kernels),
            "resolutions": list(resolution.options),
            "dropout": dropout,
        },
    )


class Proxyless(nn.Module):
    """One network of the space. Input [B, channels, R, R], output [B, classes]. Names follow timm."""

    def __init__(
        self, arch: Arch, layout: Layout, width: float, channels: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        stem, here, features = (
            make_divisible(c * width) for c in (layout.stem, layout.first, layout.features)
        )
        self.conv_stem = nn.Conv2d(channels, stem, 3, layout.stem_stride, 1, bias=False)
        self.bn1 = _norm(stem)
        stages = [nn.Sequential(_first_block(stem, here))]
        last = len(layout.widths) + 1
        for s, out in enumerate((*layout.widths, layout.last), start=1):
            out = make_divisible(out * width)
            blocks = []
            for b in range(1, (arch.integer(f"stage{s}.depth") if s < last else 1) + 1):
                name = f"stage{s}.block{b}"
                stride = layout.strides[s - 1] if b == 1 and s < last else 1
                blocks.append(
                    _block(here, out, arch.integer(f"{name}.kernel"), arch.integer(f"{name}.expand"), stride)
                )
                here = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(here, features, 1, bias=False)
        self.bn2 = _norm(features)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(features, classes)
        if not self.conv_stem.weight.is_meta:
            initialise(self)
            _begin_as_identity(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.bn1(self.conv_stem(x)))
        x = self.bn2(self.conv_head(x)).mean((2, 3))
        return self.classifier(self.dropout(x))


@remembered
def _norm(channels: int) -> nn.Module:
    return BatchNormAct2d(channels, act_layer=nn.ReLU6)


@remembered
def _first_block(channels: int, out: int) -> nn.Module:
    return DepthwiseSeparableConv(channels, out, act_layer=nn.ReLU6, noskip=True)


@remembered
def _block(here: int, out: int, kernel: int, expand: int, stride: int) -> nn.Module:
    return InvertedResidual(
        here, out, dw_kernel_size=kernel, stride=stride, exp_ratio=expand, act_layer=nn.ReLU6
    )


def _begin_as_identity(network: nn.Module) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, InvertedResidual) and module.has_skip:
                module.bn3.weight.zero_()
