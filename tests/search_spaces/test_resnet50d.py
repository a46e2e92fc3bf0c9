"""ResNet-50D as Once-for-All opens it."""

from __future__ import annotations

import pytest
import torch

from search_spaces import SpaceError, resnet50d

PLAIN = {"depths": [(3,), (4,), (6,), (3,)], "expands": (0.25,), "widths": (1.0,), "resolutions": [224]}
"""ResNet-50D itself."""


def test_the_space_has_as_many_networks_as_its_formula():
    """The stem: a convolution more or less, two widths of three. Stages: three widths, three expansions per
    bottleneck, and 2 to 4 of these, in the third stage 4 to 6."""
    space = resnet50d.space(resolutions=[224])
    assert space.size == 2 * 3 * 3 * (3 * (9 + 27 + 81)) ** 3 * 3 * (81 + 243 + 729)


def test_the_plain_resnet50_is_in_it_but_for_its_expansion():
    """Depths 3, 4, 6, 3 at full width; expansion 0.25 is that of ResNet-50."""
    space = resnet50d.space(**PLAIN)
    layers = space.layers(space.largest)
    assert sum(x.params for x in layers) == pytest.approx(25.58e6, rel=0.001)  # timm's resnet50d: 25,576,264
    assert sum(x.macs for x in layers) == pytest.approx(4.35e9, rel=0.01)


def test_numbers_are_timm_s_where_the_two_meet():
    import timm

    space = resnet50d.space(**PLAIN)
    bare = space.build(space.arch({**space.largest, "stem.depth": 0}))
    middle = 32 * 32 * 9 + 2 * 32  # timm's stem always has its middle convolution
    mine = sum(p.numel() for p in bare.parameters()) + middle
    assert mine == sum(p.numel() for p in timm.create_model("resnet50d").parameters())


def test_outputs_are_timm_s_with_the_same_weights():
    """Bottleneck by bottleneck; names and order of their tensors are the same."""
    import timm

    whole = resnet50d.space(**PLAIN, classes=5)
    theirs = timm.create_model("resnet50d", num_classes=5).eval()
    ours = whole.build(whole.largest).eval()
    with torch.no_grad():
        for name, module in theirs.named_modules():
            if name.startswith("layer") and name.count(".") == 1:
                mine = ours.get_submodule(name)
                mine.load_state_dict(module.state_dict())
                x = torch.randn(1, mine.conv1.in_channels, 8, 8)
                torch.testing.assert_close(mine(x), module(x), rtol=1e-4, atol=1e-4)


def test_widths_expansions_and_depths_are_those_of_the_arch(rng):
    space = resnet50d.space(image_size=32, classes=10)
    for arch in space.archs(space.sample(6, rng)):
        net = space.build(arch)
        assert hasattr(net.stem, "middle") == bool(arch["stem.depth"])
        for s in (1, 2, 3):
            stage = net.get_submodule(f"layer{s}")
            assert len(stage) == arch[f"stage{s}.depth"]
            for b, block in enumerate(stage, start=1):
                ratio = block.conv3.in_channels / block.conv3.out_channels
                assert ratio == pytest.approx(arch[f"stage{s}.block{b}.expand"], abs=0.15)
        size = arch["resolution"]
        assert net.eval()(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_the_first_bottleneck_of_a_stage_is_never_left_out():
    space = resnet50d.space(image_size=32)
    assert not any("block1." in c.name and c.when for c in space.choices)
    net = space.build(space.smallest)
    assert net.layer2[0].conv2.stride == (2, 2)


def test_residual_branches_start_at_zero():
    space = resnet50d.space(image_size=16, classes=10)
    net = space.build(space.largest).eval()
    x = torch.rand(2, net.layer1[1].conv1.in_channels, 8, 8)
    assert torch.equal(net.layer1[1](x), x)
    x = torch.rand(2, net.stem.middle.conv.in_channels, 8, 8)
    assert torch.equal(net.stem.middle(x), x)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"depths": [(1, 2)]}, "resnet50d has 4 stages here; depths lists 1"),
        ({"depths": [(0, 2)] * 4}, "needs depths"),
        ({"widths": (0.0, 1.0)}, "width above 0"),
        ({"image_size": 32, "resolutions": (4, 32)}, "start at 8"),
    ],
)
def test_sizes_that_make_no_network_are_refused(keywords, message):
    with pytest.raises(SpaceError, match=message):
        resnet50d.space(**keywords)
