"""ResNet-50D with elastic depth, expansion, width and resolution: a space of Once-for-All.

Four stages of bottlenecks up to two deeper than their least, each bottleneck with its own expansion, each
stage with its own width; a stem of three convolutions of which the middle one may be left out, with two
widths of its own. Source: Cai et al. 2020, arXiv:1908.09791, section 4, and its public code; ResNet-D, He et
al. 2019, arXiv:1812.01187.

Deviations: the last normalisation of a bottleneck starts at zero (Goyal et al. 2017), as does that of the
stem's middle. Images smaller than 96 pixels get a network of three stages, whose stem keeps the resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.layers import make_divisible
from torch import Tensor, nn

from search_spaces.arch import Arch
from search_spaces.channel_group import ChannelGroup, batch_norm
from search_spaces.choice import Choice
from search_spaces.convolutional import (
    SMALL_IMAGES,
    check_sizes,
    in_force,
    initialise,
    resolution_choice,
)
from search_spaces.errors import SpaceError
from search_spaces.skeleton import remembered
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class Layout:
    """The network at width 1, and its depths."""

    stem: int
    stem_stride: int  # of the first convolution; 2 brings a max pooling of stride 2, too
    widths: tuple[int, ...]  # channels of each stage
    strides: tuple[int, ...]
    depths: tuple[tuple[int, ...], ...]  # bottlenecks of each stage to choose from


IMAGENET = Layout(
    stem=64,
    stem_stride=2,
    widths=(256, 512, 1024, 2048),
    strides=(1, 2, 2, 2),
    depths=((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4)),
)
SMALL = Layout(16, 1, (64, 128, 256), (1, 2, 2), ((1, 2, 3),) * 3)
TINY = Layout(8, 1, (24, 48), (2, 2), ((1, 2),) * 2)


def space(
    *,
    classes: int = 1000,
    channels: int = 3,
    image_size: int = 224,
    widths: Sequence[float] = (0.65, 0.8, 1.0),
    expands: Sequence[float] | None = None,
    depths: Sequence[Sequence[int]] | None = None,
    resolutions: Sequence[int] | None = None,
    dropout: float = 0.0,
) -> SearchSpace:
    """ResNet-50D for `classes` classes and images of `channels` x `image_size` x `image_size`.

    Args:
        widths: multipliers of a stage's channels to choose from, and of the stem's two.
        expands: channels between a bottleneck's convolutions over those after it; default 0.2, 0.25 and 0.35,
            and 0.25, 0.5 and 1.0 below 96 pixels.
        depths: bottlenecks to choose from, for each stage; default up to two more than 2, 2, 4 and 2.
        resolutions: input sizes to choose from; see `convolutional.resolution_choice`.
        dropout: before the classifier, in training.

    Raises:
        SpaceError: sizes that make no network.
    """
    small = image_size < SMALL_IMAGES
    layout = IMAGENET if not small else SMALL if image_size >= 24 else TINY
    expands = tuple(expands or ((0.25, 0.5, 1.0) if small else (0.2, 0.25, 0.35)))
    stages = tuple(tuple(options) for options in depths) if depths else layout.depths
    check_sizes("resnet50d", [min(options, default=0) for options in stages], classes, channels, min(widths))
    if len(stages) != len(layout.widths):
        raise SpaceError(f"resnet50d has {len(layout.widths)} stages here; depths lists {len(stages)}")
    resolution = resolution_choice("resnet50d", image_size, resolutions)
    slots = tuple(widths)
    choices = [
        resolution,
        Choice("stem.depth", (0, 1)),
        Choice("stem.middle_width", slots),
        Choice("stem.width", slots),
    ]
    groups: list[ChannelGroup] = []
    for s, options in enumerate(stages, start=1):
        depth, wide = f"stage{s}.depth", f"stage{s}.width"
        choices += [Choice(depth, options), Choice(wide, slots)]
        for b in range(1, max(options) + 1):
            expand = f"stage{s}.block{b}.expand"
            choices.append(Choice(expand, expands, when=in_force(depth, options, b)))
            groups += _bottleneck(f"layer{s}.{b - 1}", (wide, expand))

    def build(arch: Arch) -> nn.Module:
        return ResNet50D(arch, layout, channels, classes, dropout)

    return SearchSpace(
        "resnet50d",
        choices,
        build,
        input_shape=(channels, image_size, image_size),
        channel_groups=groups,
        settings={
            "classes": classes,
            "channels": channels,
            "image_size": image_size,
            "widths": list(slots),
            "expands": list(expands),
            "depths": [list(options) for options in stages],
            "resolutions": list(resolution.options),
            "dropout": dropout,
        },
    )


def _bottleneck(path: str, choices: tuple[str, ...]) -> list[ChannelGroup]:
    """The channels after the first and after the second convolution."""
    return [
        ChannelGroup(
            f"{path}.conv{n + 1}.weight",
            {f"{path}.conv{n}.weight": 0, **batch_norm(f"{path}.bn{n}"), f"{path}.conv{n + 1}.weight": 1},
            choices,
        )
        for n in (1, 2)
    ]


class ResNet50D(nn.Module):
    """One network of the space. Input [B, channels, R, R], output [B, classes]. Names follow timm."""

    def __init__(self, arch: Arch, layout: Layout, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        middle = _times(layout.stem // 2, arch["stem.middle_width"])
        here = _times(layout.stem, arch["stem.width"])
        self.stem = nn.Sequential()
        self.stem.add_module("first", _convolution(channels, middle, 3, layout.stem_stride))
        if arch["stem.depth"]:
            self.stem.add_module("middle", Residual(middle))
        self.stem.add_module("last", _convolution(middle, here, 3, 1))
        self.maxpool = nn.MaxPool2d(3, 2, 1) if layout.stem_stride == 2 else nn.Identity()
        self.stages = len(layout.widths)
        for s, width in enumerate(layout.widths, start=1):
            out = _times(width, arch[f"stage{s}.width"])
            blocks = []
            for b in range(1, arch.integer(f"stage{s}.depth") + 1):
                between = _times(out, arch[f"stage{s}.block{b}.expand"])
                blocks.append(_block(here, between, out, layout.strides[s - 1] if b == 1 else 1, b == 1))
                here = out
            self.add_module(f"layer{s}", nn.Sequential(*blocks))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(here, classes)
        if not self.fc.weight.is_meta:
            initialise(self)
            _begin_as_identity(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.stem(x))
        for s in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{s}")(x)
        return self.fc(self.dropout(x.mean((2, 3))))


class Residual(nn.Module):
    """A convolution beside the identity, then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bn(self.conv(x))).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1; a shortcut that changes channels pools first (ResNet-D)."""

    def __init__(self, here: int, between: int, out: int, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(here, between, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(between)
        self.conv2 = nn.Conv2d(between, between, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(between)
        self.conv3 = nn.Conv2d(between, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = nn.Sequential() if first else nn.Identity()
        if first:
            pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            self.downsample.add_module("0", pool if stride > 1 else nn.Identity())
            self.downsample.add_module("1", nn.Conv2d(here, out, 1, bias=False))
            self.downsample.add_module("2", nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


def _times(channels: int, multiplier: object) -> int:
    assert isinstance(multiplier, int | float)
    return int(make_divisible(round(channels * multiplier)))


@remembered
def _convolution(here: int, out: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(here, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


@remembered
def _block(here: int, between: int, out: int, stride: int, first: bool) -> nn.Module:
    return Bottleneck(here, between, out, stride, first)


def _begin_as_identity(network: nn.Module) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Bottleneck):
                module.bn3.weight.zero_()
            elif isinstance(module, Residual):
                module.bn.weight.zero_()
