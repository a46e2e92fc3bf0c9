"""First values from a trained network: copied, cut, resampled, fitted, or refused."""

from __future__ import annotations

import pytest
import torch
from drawn import assert_equal, randomise
from learngenes import depths, layers, learngene, of_depth, pictures
from torch import Tensor

from search_spaces import InputError
from supernets import LinearExpansion, Slice, StageShared, Supernet
from supernets.pretrained import initialise, same_network, take_over


def source(depth: int = 4, **settings: object) -> dict[str, Tensor]:
    supernet = randomise(Supernet(depths(depth, **settings), seed=7))
    return supernet.extract(supernet.space.largest).state_dict()


def test_the_same_network_is_copied_whole():
    supernet, plain = Supernet(depths(4)), source()
    done = initialise(supernet, plain, same_classes=True)
    assert (done.tensors, done.fresh, done.changes) == (len(plain), (), ())
    assert all(torch.equal(plain[name], t) for name, t in supernet.shared_state().items())


def test_with_other_classes_the_head_is_fresh():
    supernet, plain = Supernet(depths(4, classes=5)), source()
    before = {name: t.detach().clone() for name, t in supernet.shared_state().items()}
    done = initialise(supernet, plain, same_classes=False)
    assert done.fresh == ("head.bias", "head.weight")
    for name, tensor in supernet.shared_state().items():
        assert torch.equal(tensor, before[name] if name in done.fresh else plain[name]), name


def test_a_deeper_and_wider_network_gives_its_first_layers_and_leading_entries():
    plain = source(6, embed_dims=(32,), heads=(4,), mlp_ratios=(4.0,))
    supernet = Supernet(depths(2, 4))
    done = initialise(supernet, plain, same_classes=True)
    assert "the first 4 of 6 layers" in done.changes
    assert any(change.startswith("widths cut") for change in done.changes)
    state = supernet.shared_state()
    assert torch.equal(state["blocks.3.mlp.fc1.weight"], plain["blocks.3.mlp.fc1.weight"][:64, :16])
    assert torch.equal(state["pos_embed"], plain["pos_embed"][..., :16])
    qkv = plain["blocks.1.attn.qkv.weight"].unflatten(0, (3, 4, 8))[:, :2, :, :16]
    assert torch.equal(state["blocks.1.attn.qkv.weight"], qkv.flatten(0, 2))


def test_what_is_cut_is_the_subnet_of_the_larger_supernet():
    wide = randomise(Supernet(depths(4, embed_dims=(16, 32), heads=(2, 4)), seed=7)).eval()
    narrow = Supernet(depths(4)).eval()
    initialise(narrow, wide.extract(wide.space.largest).state_dict(), same_classes=True)
    arch = wide.space.smallest
    with torch.no_grad():
        assert_equal(narrow(pictures(), narrow.space.largest), wide(pictures(), arch))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"embed_dims": (32,)}, r"is \[.*16.*\] in the network to start from and \[.*32.*\] in 'vit'"),
        ({"wanted": (6,)}, "has 4 layers, 'vit' up to 6"),
        ({"pool": "token"}, r"1 tensors missing \(cls_token\)"),
    ],
)
def test_nothing_is_made_up(settings, said):
    supernet = Supernet(depths(*settings.pop("wanted", (4,)), **settings))
    before = {name: t.detach().clone() for name, t in supernet.shared_state().items()}
    with pytest.raises(InputError, match=said):
        initialise(supernet, source(), same_classes=True)
    assert all(torch.equal(before[name], t) for name, t in supernet.shared_state().items())


def test_another_network_is_refused():
    with pytest.raises(InputError, match=r"tensors missing .*, 1 unknown \(conv.weight\)"):
        initialise(Supernet(depths(2)), {"conv.weight": torch.zeros(3)}, same_classes=True)


def test_positions_patches_and_colours_go_timm_s_way():
    from timm.layers import resample_abs_pos_embed, resample_patch_embed
    from timm.models import adapt_input_conv

    plain = source(2, image_size=16, patch=4, channels=3, pool="token")
    supernet = Supernet(depths(2, image_size=16, patch=2, pool="token"))
    done = initialise(supernet, plain, same_classes=True)
    assert len(done.changes) == 3, done.changes
    state = supernet.shared_state()
    expected = resample_abs_pos_embed(plain["pos_embed"], [8, 8], [4, 4], num_prefix_tokens=1)
    assert torch.equal(state["pos_embed"], expected)
    assert torch.equal(state["pos_embed"][:, 0], plain["pos_embed"][:, 0])
    grey = adapt_input_conv(1, plain["patch_embed.proj.weight"])
    assert torch.equal(state["patch_embed.proj.weight"], resample_patch_embed(grey, [2, 2]))


def test_a_grey_network_sees_a_grey_picture_in_colours_as_before():
    supernet, plain = Supernet(depths(2, channels=3)).eval(), Supernet(depths(2)).eval()
    plain.load_shared_state(source(2))
    initialise(supernet, source(2), same_classes=True)
    x = pictures()
    with torch.no_grad():
        coloured = supernet(x.expand(-1, 3, -1, -1), supernet.space.largest)
        torch.testing.assert_close(coloured, plain(x, plain.space.largest))


def test_a_space_without_a_token_leaves_it_out():
    plain = source(2, pool="token")
    supernet = Supernet(depths(2))
    assert "without the class token" in initialise(supernet, plain, same_classes=True).changes
    assert torch.equal(supernet.shared_state()["pos_embed"], plain["pos_embed"][:, 1:])


def test_a_trained_network_is_fitted_by_a_line_over_all_its_layers():
    """The network of a learngene gives the learngene back, whatever depth the new one is trained at."""
    first = learngene(LinearExpansion(), 6)
    second = Supernet(depths(3), LinearExpansion())
    initialise(second, first.extract(first.space.largest).state_dict(), same_classes=True)
    for name, tensor in second.shared_state().items():
        torch.testing.assert_close(tensor, first.shared_state()[name], atol=1e-5, rtol=1e-4)


def test_a_trained_network_gives_its_mean_layers_to_the_stages():
    plain = source(4)
    supernet = Supernet(depths(8), StageShared((1, 1)))
    initialise(supernet, plain, same_classes=True)
    for leaf in ("norm1.weight", "mlp.fc2.weight"):
        expected = (plain[f"blocks.2.{leaf}"] + plain[f"blocks.3.{leaf}"]) / 2
        torch.testing.assert_close(supernet.shared_state()[f"blocks.1.{leaf}"].detach(), expected)


def test_a_descendant_is_what_a_plain_supernet_begins_with():
    auxiliary = learngene(StageShared((1, 2, 1)), 4)
    model = of_depth(auxiliary, 7, StageShared((1, 2, 1)))
    plain = Supernet(depths(7)).eval()
    initialise(plain, model.state_dict(), same_classes=True)
    with torch.no_grad():
        assert_equal(plain(pictures(), plain.space.largest), model(pictures()))
    assert len({t.untyped_storage().data_ptr() for t in layers(plain.subnet(plain.space.largest))}) == 7


def test_shared_weights_of_a_supernet_alike_are_taken_over():
    first, second = learngene(LinearExpansion(), 6), Supernet(depths(3, classes=5), LinearExpansion())
    stored = {name: t.detach() for name, t in first.shared_state().items()}
    assert same_network(second, stored)
    done = take_over(second, stored, same_classes=False)
    assert done.fresh == ("head.bias", "head.weight")
    for name, tensor in second.shared_state().items():
        assert name in done.fresh or torch.equal(tensor, stored[name])
    assert not same_network(Supernet(depths(3), Slice()), stored)
