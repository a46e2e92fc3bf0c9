"""The space of AutoFormer."""

from __future__ import annotations

import pytest
import torch

from search_spaces import SpaceError, vit


def test_sizes_are_those_of_the_arch(rng):
    space = vit.space(image_size=32, classes=10)
    for arch in space.archs(space.sample(6, rng)):
        net = space.build(arch)
        dim = arch["embed_dim"]
        assert len(net.blocks) == arch["depth"]
        assert net.pos_embed.shape[-1] == dim
        for b, block in enumerate(net.blocks, start=1):
            assert block.attn.num_heads == arch[f"block{b}.heads"]
            assert block.attn.qkv.weight.shape == (3 * 32 * arch[f"block{b}.heads"], dim)
            assert block.mlp.fc1.out_features == int(dim * arch[f"block{b}.mlp_ratio"])
        assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_parameters_of_the_space_of_the_paper():
    """AutoFormer-tiny spans 4 to 10 million parameters (Chen et al. 2021, table 1)."""
    space = vit.space()
    smallest, largest = (sum(x.params for x in space.layers(a)) for a in (space.smallest, space.largest))
    assert 4.0e6 < smallest < 6.0e6
    assert 8.5e6 < largest < 10.5e6


def test_a_block_is_that_of_timm():
    """Same weights, same tokens, same numbers, where timm's head size is ours."""
    from timm.models.vision_transformer import Block

    torch.manual_seed(0)
    ours = vit.Block(64, 2, 32, 2.0).eval()
    theirs = Block(64, 2, mlp_ratio=2.0, qkv_bias=True, norm_layer=type(ours.norm1)).eval()
    for norm in (theirs.norm1, theirs.norm2):
        norm.eps = 1e-6
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 64)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("image_size", [8, 16, 28, 32, 49, 64, 96, 224])
def test_default_patches_tile_the_image(image_size):
    space = vit.space(image_size=image_size)
    patch = space.settings["patch"]
    assert image_size % patch == 0
    assert image_size // patch >= 6


@pytest.mark.parametrize(
    "keywords", [{"image_size": 30, "patch": 4}, {"image_size": 230}, {"depths": (0, 2)}]
)
def test_sizes_that_make_no_network_are_refused(keywords):
    with pytest.raises(SpaceError, match="vit needs an image size that patches"):
        vit.space(**keywords)


def test_mean_pooling_has_no_token_and_is_that_of_timm(rng):
    from timm.models.vision_transformer import VisionTransformer

    space = vit.space(
        image_size=16, patch=4, classes=5, depths=(2,), embed_dims=(32,), heads=(2,), head_dim=16, pool="mean"
    )
    ours = space.build(space.largest).eval()
    assert ours.pos_embed.shape == (1, 16, 32)
    theirs = VisionTransformer(
        img_size=16,
        patch_size=4,
        num_classes=5,
        depth=2,
        embed_dim=32,
        num_heads=2,
        class_token=False,
        global_pool="avg",
        fc_norm=False,
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(ours(x), theirs.eval()(x))


def test_drop_path_grows_with_the_layer_or_is_a_list_by_index():
    def rates(drop_path, depth):
        space = vit.space(image_size=16, classes=5, depths=(1, 3, 5), drop_path=drop_path)
        net = space.build(space.arch({**space.largest, "depth": depth}))
        return [getattr(block.drop_path, "drop_prob", 0.0) for block in net.blocks]

    assert rates(0.0, 5) == [0.0] * 5
    assert rates(0.4, 5) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert rates(0.4, 3) == pytest.approx([0.0, 0.2, 0.4])
    assert rates(0.4, 1) == [0.0]
    assert rates((0.3, 0.0, 0.1, 0.2, 0.5), 3) == [0.3, 0.0, 0.1]


@pytest.mark.parametrize("wrong", [{"pool": "max"}, {"drop_path": 1.0}, {"drop_path": (0.1, 0.2)}])
def test_options_that_make_no_network_are_refused(wrong):
    with pytest.raises(SpaceError, match=next(iter(wrong))):
        vit.space(image_size=16, classes=5, depths=(3,), **wrong)


def test_every_layer_norm_has_the_same_eps(rng):
    for pool in ("token", "mean"):
        space = vit.space(image_size=16, classes=5, pool=pool)
        norms = [m for m in space.build(space.largest).modules() if isinstance(m, torch.nn.LayerNorm)]
        assert {norm.eps for norm in norms} == {1e-6}
