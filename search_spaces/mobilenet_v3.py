"""MobileNetV3 with elastic kernel, depth, expansion and resolution: the space of Once-for-All.

Five stages of two to four inverted residual blocks, each with its own kernel and expansion: 7371^5 networks
per resolution. Source: Cai et al. 2020, arXiv:1908.09791, section 3 and appendix; blocks from timm.

Deviations: the squeeze of the squeeze-excite keeps timm's ReLU; the last normalisation of a residual block
starts at zero (Goyal et al. 2017), as in later supernets. Images smaller than 96 pixels get a network
of three stages whose stem keeps the resolution, below 24 pixels a narrow one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from timm.layers import BatchNormAct2d, make_divisible
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual, SqueezeExcite
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
    widths: tuple[int, ...]  # channels of each stage
    strides: tuple[int, ...]
    squeeze_excite: tuple[bool, ...]
    hard_swish: tuple[bool, ...]  # else ReLU
    features: tuple[int, int]  # channels before and after pooling


IMAGENET = Layout(
    stem=16,
    stem_stride=2,
    widths=(24, 40, 80, 112, 160),
    strides=(2, 2, 2, 1, 2),
    squeeze_excite=(False, True, False, True, True),
    hard_swish=(False, False, True, True, True),
    features=(960, 1280),
)
SMALL = Layout(
    stem=16,
    stem_stride=1,
    widths=(16, 24, 40),
    strides=(2, 2, 2),
    squeeze_excite=(False, True, True),
    hard_swish=(False, True, True),
    features=(240, 320),
)
TINY = Layout(
    stem=8,
    stem_stride=1,
    widths=(8, 8, 16),
    strides=(2, 2, 1),
    squeeze_excite=(False, True, True),
    hard_swish=(False, True, True),
    features=(48, 64),
)

_squeeze_excite = partial(
    SqueezeExcite, gate_layer=nn.Hardsigmoid, force_act_layer=nn.ReLU, rd_round_fn=make_divisible
)


def space(
    *,
    classes: int = 1000,
    channels: int = 3,
    image_size: int = 224,
    width: float = 1.0,
    depths: Sequence[int] | None = None,
    expands: Sequence[int] | None = None,
    kernels: Sequence[int] = (3, 5, 7),
    resolutions: Sequence[int] | None = None,
    dropout: float = 0.1,
) -> SearchSpace:
    """MobileNetV3 for `classes` classes and images of `channels` x `image_size` x `image_size`.

    Args:
        width: multiplies all channels (the paper uses 1.0 and 1.2).
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
    depths = tuple(depths or ((1, 2, 3, 4) if small else (2, 3, 4)))
    expands = tuple(expands or ((1, 2, 4) if small else (3, 4, 6)))
    check_sizes("mobilenet_v3", depths, classes, channels, width, kernels)
    resolution = resolution_choice("mobilenet_v3", image_size, resolutions)
    choices = [resolution]
    groups: list[ChannelGroup] = []
    for s in range(1, len(layout.widths) + 1):
        depth = f"stage{s}.depth"
        choices.append(Choice(depth, depths))
        for b in range(1, max(depths) + 1):
            deep_enough = in_force(depth, depths, b)
            choices.append(Choice(f"stage{s}.block{b}.kernel", tuple(kernels), when=deep_enough))
            choices.append(Choice(f"stage{s}.block{b}.expand", expands, when=deep_enough))
            groups += inverted_residual(
                f"blocks.{s}.{b - 1}", layout.squeeze_excite[s - 1], (f"stage{s}.block{b}.expand",)
            )

    def build(arch: Arch) -> nn.Module:
        return MobileNetV3(arch, layout, width, channels, classes, dropout)

    return SearchSpace(
        "mobilenet_v3",
        choices,
        build,
        input_shape=(channels, image_size, image_size),
        channel_groups=groups,
        settings={
            "classes": classes,
            "channels": channels,
            "image_size": image_size,
            "width": width,
            "depths": list(depths),
            "expands": list(expands),
            "kernels": list(kernels),
            "resolutions": list(resolution.options),
            "dropout": dropout,
        },
    )


class MobileNetV3(nn.Module):
    """One network of the space. Input [B, channels, R, R], output [B, classes]. Names follow timm."""

    def __init__(
        self, arch: Arch, layout: Layout, width: float, channels: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        stem = make_divisible(layout.stem * width)
        self.conv_stem = nn.Conv2d(channels, stem, 3, layout.stem_stride, 1, bias=False)
        self.bn1 = _norm(stem, nn.Hardswish)
        stages = [nn.Sequential(_first_block(stem))]
        here = stem
        for s, out in enumerate(layout.widths, start=1):
            out = make_divisible(out * width)
            act = nn.Hardswish if layout.hard_swish[s - 1] else nn.ReLU
            blocks = []
            for b in range(1, arch.integer(f"stage{s}.depth") + 1):
                blocks.append(
                    _block(
                        here,
                        out,
                        arch.integer(f"stage{s}.block{b}.kernel"),
                        arch.integer(f"stage{s}.block{b}.expand"),
                        layout.strides[s - 1] if b == 1 else 1,
                        layout.squeeze_excite[s - 1],
                        act,
                    )
                )
                here = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        before, after = (make_divisible(f * width) for f in layout.features)
        self.conv_last = nn.Conv2d(here, before, 1, bias=False)
        self.bn2 = _norm(before, nn.Hardswish)
        self.conv_head = nn.Conv2d(before, after, 1)
        self.act2 = nn.Hardswish()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(after, classes)
        if not self.conv_stem.weight.is_meta:
            initialise(self)
            _begin_as_identity(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.bn1(self.conv_stem(x)))
        x = self.bn2(self.conv_last(x)).mean((2, 3), keepdim=True)
        x = self.act2(self.conv_head(x)).flatten(1)
        return self.classifier(self.dropout(x))


@remembered
def _norm(channels: int, act: type[nn.Module]) -> nn.Module:
    return BatchNormAct2d(channels, act_layer=act)


@remembered
def _first_block(channels: int) -> nn.Module:
    return DepthwiseSeparableConv(channels, channels, act_layer=nn.ReLU)


@remembered
def _block(
    here: int, out: int, kernel: int, expand: int, stride: int, squeeze_excite: bool, act: type[nn.Module]
) -> nn.Module:
    return InvertedResidual(
        here,
        out,
        dw_kernel_size=kernel,
        stride=stride,
        exp_ratio=expand,
        act_layer=act,
        se_layer=_squeeze_excite if squeeze_excite else None,  # type: ignore[arg-type]  # timm calls it
    )


def _begin_as_identity(network: nn.Module) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, InvertedResidual) and module.has_skip:
                module.bn3.weight.zero_()
