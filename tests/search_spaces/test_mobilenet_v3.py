"""The space of Once-for-All."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces import SpaceError, mobilenet_v3


def arch_of(space, **wanted):
    full = {c.name: c.options[-1] for c in space.choices} | wanted
    return space.arch(full)


def test_kernels_expansions_and_depths_are_those_of_the_arch(rng):
    space = mobilenet_v3.space(image_size=32, classes=10)
    for arch in space.archs(space.sample(10, rng)):
        net = space.build(arch)
        for s, stage in enumerate(list(net.blocks)[1:], start=1):
            assert len(stage) == arch[f"stage{s}.depth"]
            for b, block in enumerate(stage, start=1):
                kernel, expand = arch[f"stage{s}.block{b}.kernel"], arch[f"stage{s}.block{b}.expand"]
                if hasattr(block, "conv_pw"):
                    channels = block.conv_pw.in_channels
                    assert block.conv_dw.kernel_size == (kernel, kernel)
                    assert block.conv_dw.groups == block.conv_pw.out_channels >= channels * expand * 0.9
        size = arch["resolution"]
        assert net.eval()(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_the_largest_imagenet_network_has_the_size_of_once_for_all():
    """OFA-MBV3 of width 1.0 at depth 4, kernel 7, expansion 6: 20 blocks between stem and head."""
    space = mobilenet_v3.space()
    layers = space.layers(space.largest)
    depthwise = [x for x in layers if x.kind == "conv2d" and x.groups > 1]
    assert len(depthwise) == 21
    assert [x.output[-1] for x in depthwise][::4] == [112, 56, 28, 14, 14, 7]
    assert sum(x.params for x in layers) == pytest.approx(7.7e6, rel=0.03)


def test_multiply_adds_of_the_table_of_the_paper():
    """The smallest network of the space at 128 pixels is far below MobileNetV3-Large (219 M)."""
    space = mobilenet_v3.space(resolutions=range(128, 225, 4))
    assert sum(x.macs for x in space.layers(space.smallest)) < 60e6


def test_residual_blocks_start_as_the_identity():
    torch.manual_seed(0)
    space = mobilenet_v3.space(image_size=32, classes=10)
    net = space.build(space.largest).eval()
    block = net.blocks[2][1]
    assert block.has_skip
    x = torch.randn(2, block.conv_pw.in_channels, 8, 8)
    assert torch.equal(block(x), x)
    assert not net.blocks[2][0].has_skip


def test_squeeze_excite_gates_are_hard():
    net = mobilenet_v3.space().build(mobilenet_v3.space().smallest)
    assert {type(m.gate) for m in net.modules() if type(m).__name__ == "SqueezeExcite"} == {nn.Hardsigmoid}


@pytest.mark.parametrize("image_size", [8, 16, 23, 24, 28, 32, 64, 95, 96, 128, 160, 224, 256])
def test_default_resolutions_end_at_the_image_size(image_size):
    space = mobilenet_v3.space(image_size=image_size)
    (options,) = (c.options for c in space.choices if c.name == "resolution")
    assert options[-1] == image_size
    assert list(options) == sorted(set(options))
    assert options[0] >= 8
    assert space.image_size == image_size


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"kernels": (2, 3)}, "odd kernels"),
        ({"depths": (0, 1)}, "needs depths.* not depths"),
        ({"classes": 0}, "classes"),
        ({"channels": 0}, "channels"),
        ({"image_size": 7}, "must start at 8"),
        ({"image_size": 32, "resolutions": (16, 24)}, "end at image_size 32"),
        ({"image_size": 32, "resolutions": (4, 32)}, "start at 8"),
    ],
)
def test_sizes_that_make_no_network_are_refused(keywords, message):
    with pytest.raises(SpaceError, match=message):
        mobilenet_v3.space(**keywords)


def test_width_multiplies_channels():
    wide = mobilenet_v3.space(image_size=32, width=2.0)
    net = wide.build(wide.smallest)
    base = mobilenet_v3.space(image_size=32)
    plain = base.build(base.smallest)
    assert net.conv_stem.out_channels == 2 * plain.conv_stem.out_channels
    assert net.classifier.in_features == 2 * plain.classifier.in_features


def test_dropout_acts_in_training_only():
    space = mobilenet_v3.space(image_size=16, classes=4, dropout=0.5)
    net = space.build(space.smallest).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(net(x), net(x))
    assert net.dropout.p == 0.5
