"""ProxylessNAS as Once-for-All opens it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces import SpaceError, proxyless


def test_the_space_has_as_many_networks_as_the_paper_counts():
    """(9^2 + 9^3 + 9^4)^5 for five stages, times the kernels and expansions of the last block."""
    space = proxyless.space(resolutions=[224])
    assert space.size == 9 * 7371**5
    assert proxyless.space(resolutions=range(128, 225, 4)).size == 25 * space.size


def test_the_largest_imagenet_network_is_once_for_all_s():
    space = proxyless.space()
    layers = space.layers(space.largest)
    depthwise = [x for x in layers if x.kind == "conv2d" and x.groups > 1]
    assert len(depthwise) == 22
    assert [x.output[-1] for x in depthwise][1::4] == [56, 28, 14, 14, 7, 7]
    assert [x.output[1] for x in layers if x.name.endswith("conv_pwl")][3::4] == [32, 56, 104, 128, 248]
    assert layers[0].output[1] == 40
    assert {type(m.act) for m in space.build(space.largest).modules() if hasattr(m, "drop")} <= {
        nn.ReLU6,
        nn.Identity,
    }


def test_kernels_expansions_and_depths_are_those_of_the_arch(rng):
    space = proxyless.space(image_size=32, classes=10)
    for arch in space.archs(space.sample(6, rng)):
        net = space.build(arch)
        stages = list(net.blocks)[1:]
        assert len(stages[-1]) == 1
        for s, stage in enumerate(stages, start=1):
            assert len(stage) == arch.get(f"stage{s}.depth", 1)
            for b, block in enumerate(stage, start=1):
                kernel, expand = arch[f"stage{s}.block{b}.kernel"], arch[f"stage{s}.block{b}.expand"]
                assert block.conv_dw.kernel_size == (kernel, kernel)
                assert block.conv_dw.groups >= block.conv_pw.in_channels * expand * 0.9
        size = arch["resolution"]
        assert net.eval()(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_residual_blocks_start_as_the_identity_and_the_first_has_no_shortcut():
    space = proxyless.space(image_size=16, classes=10)
    net = space.build(space.largest).eval()
    assert not net.blocks[0][0].has_skip
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(net.blocks[1][1](x), x)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"kernels": (2, 3)}, "odd kernels"),
        ({"depths": (0, 1)}, "needs depths.* not depths"),
        ({"width": 0.0}, "width above 0"),
        ({"image_size": 7}, "must start at 8"),
    ],
)
def test_sizes_that_make_no_network_are_refused(keywords, message):
    with pytest.raises(SpaceError, match=message):
        proxyless.space(**keywords)


def test_the_width_is_that_of_the_paper_for_photographs():
    assert proxyless.space().settings["width"] == 1.3
    assert proxyless.space(image_size=32).settings["width"] == 1.0
