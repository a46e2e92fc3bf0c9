"""SWS: stages share a layer, descendants of any depth come from it."""

from __future__ import annotations

import pytest
import torch
from drawn import assert_equal
from hypothesis import given
from hypothesis import strategies as st
from learngenes import BLOCK, LEAVES, count, depths, layers, learngene, of_depth, pictures

from search_spaces import SpaceError
from supernets import Slice, StageShared, Supernet
from supernets.schemes.stage_shared import STAGES, sources

AUXILIARY = (0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4)


def untied(supernet: Supernet, depth: int) -> Supernet:
    """A plain supernet of one depth with the values of the descendant."""
    space = depths(depth)
    plain = Supernet(space, Slice())
    plain.load_shared_state(supernet.extract(space.largest).state_dict())
    return plain.eval()


# -- the map -------------------------------------------------------------------------------------------------


def test_the_auxiliary_of_the_paper_has_its_map():
    assert sources(STAGES, 16) == AUXILIARY
    assert StageShared().sources(16) == AUXILIARY


@given(stages=st.lists(st.integers(1, 6), min_size=1, max_size=7), depth=st.integers(1, 40))
def test_a_map_never_goes_back_and_covers_every_stage_where_there_is_room(stages, depth):
    found = sources(tuple(stages), depth)
    assert len(found) == depth
    assert list(found) == sorted(found)
    assert set(found) <= set(range(len(stages)))
    if depth >= len(stages):
        assert set(found) == set(range(len(stages)))
    else:
        assert len(set(found)) == depth


@given(stages=st.lists(st.integers(1, 6), min_size=1, max_size=7), factor=st.integers(1, 3))
def test_multiples_of_the_auxiliary_multiply_its_stages(stages, factor):
    expected = tuple(s for s, repeats in enumerate(stages) for _ in range(factor * repeats))
    assert sources(tuple(stages), factor * sum(stages)) == expected


def test_few_layers_keep_the_stages_at_rounded_positions():
    assert [sources(STAGES, depth) for depth in (1, 2, 3, 4)] == [(0,), (0, 4), (0, 2, 4), (0, 1, 3, 4)]


def test_a_list_decides_its_depth():
    published = (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4)
    scheme = StageShared(maps=[published])
    assert scheme.sources(12) == published
    assert scheme.sources(16) == AUXILIARY


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"stages": ()}, "stages"),
        ({"stages": (2, 0)}, "stages"),
        ({"stages": (2.0, 1)}, "stages"),
        ({"stages": 3}, "stages"),
        ({"maps": [(0, 1, 0)]}, "never goes back"),
        ({"maps": [(0, 5)]}, "from 0 to 4"),
        ({"maps": [()]}, "map"),
        ({"maps": [(0, 1, 2, 3, 3)]}, "leaves out stage 4"),
        ({"layers": "blocks.*"}, "{}"),
    ],
)
def test_what_is_no_map_is_refused(keywords, said):
    with pytest.raises(SpaceError, match=said):
        StageShared(**keywords)


def test_depth_0_has_no_map():
    with pytest.raises(SpaceError, match="depth = 0"):
        sources(STAGES, 0)


# -- the auxiliary -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [4, 5, 9, 16])
def test_the_auxiliary_has_one_block_per_stage_at_any_depth(depth):
    supernet = Supernet(depths(depth), StageShared((1, 2, 1)))
    shared_by_all = count(supernet.space.build(supernet.space.largest)) - depth * BLOCK
    assert count(supernet) == 3 * BLOCK + shared_by_all


def test_the_size_of_the_paper():
    """Learngenes of 8.9 and 35.4 million parameters for widths 384 and 768 (before embeddings)."""
    for dim, millions in ((384, 8.9), (768, 35.4)):
        space = depths(6, embed_dims=(dim,), heads=(dim // 64,), head_dim=64)
        shapes = dict(space.skeleton(space.largest).named_parameters())
        block = sum(p.numel() for name, p in shapes.items() if name.startswith("blocks.0."))
        assert block == 12 * dim**2 + 13 * dim
        assert round(5 * block / 1e6, 1) == millions


def test_ones_make_a_plain_network():
    space = depths(4)
    plain, tied = Supernet(space, Slice(), seed=5), Supernet(space, StageShared((1, 1, 1, 1)), seed=5)
    assert plain.shared_state().keys() == tied.shared_state().keys()
    tied.load_shared_state(plain.shared_state())
    x = pictures()
    assert_equal(tied(x, space.largest).detach(), plain(x, space.largest).detach())


def test_one_stage_is_fully_tied():
    supernet = learngene(StageShared((6,)), 6)
    subnet = supernet.subnet(supernet.space.largest)
    assert len({id(t) for t in layers(subnet)}) == 1
    assert [name for name in supernet.shared_state() if ".attn.qkv.weight" in name] == [
        "blocks.0.attn.qkv.weight"
    ]


def test_the_gradient_of_an_instance_is_the_sum_over_its_layers():
    supernet = learngene(StageShared((2, 1, 3)), 6)
    supernet.double()
    plain = untied(supernet, 6).double()
    plain.load_shared_state(supernet.extract(supernet.space.largest).state_dict())
    x, arch = pictures().double(), supernet.space.largest
    supernet(x, arch).square().sum().backward()
    plain(x, arch).square().sum().backward()
    for leaf in LEAVES:
        for s in range(3):
            of = [layer for layer, source in enumerate(sources((2, 1, 3), 6)) if source == s]
            total = sum(plain.shared[f"blocks.{layer}.{leaf}"].grad for layer in of)
            torch.testing.assert_close(supernet.shared[f"blocks.{s}.{leaf}"].grad, total)
    for name in ("pos_embed", "patch_embed.proj.weight", "norm.weight", "head.weight"):
        torch.testing.assert_close(supernet.shared[name].grad, plain.shared[name].grad)


def test_drop_path_goes_by_the_layer_not_by_the_instance():
    supernet = learngene(StageShared((3, 1)), 4, drop_path=[0.0, 0.1, 0.2, 0.3])
    blocks = supernet.subnet(supernet.space.largest).blocks
    assert [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks] == [0.0, 0.1, 0.2, 0.3]


# -- descendants ---------------------------------------------------------------------------------------------


def test_the_descendant_of_the_auxiliary_s_depth_is_the_auxiliary_bit_for_bit():
    supernet = learngene(StageShared(), 16)
    x = pictures()
    with torch.no_grad():
        expected = supernet(x, supernet.space.largest)
        assert_equal(of_depth(supernet, 16, StageShared())(x), expected)
        assert_equal(untied(supernet, 16)(x, supernet.space.largest), expected)


@pytest.mark.parametrize("depth", [1, 3, 5, 8, 20])
def test_layers_of_a_stage_are_equal_but_their_own_until_trained(depth):
    model = of_depth(learngene(StageShared(), 16), depth, StageShared()).train()
    of = sources(STAGES, depth)
    for leaf in LEAVES:
        tensors = layers(model, leaf)
        assert len({t.untyped_storage().data_ptr() for t in tensors}) == depth
        for i, a in enumerate(tensors):
            for j, b in enumerate(tensors):
                assert torch.equal(a, b) == (of[i] == of[j]), (leaf, i, j)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(pictures(8)).square().sum().backward()
    optimizer.step()
    tensors = layers(model, "mlp.fc2.weight")
    assert not any(torch.equal(a, b) for i, a in enumerate(tensors) for b in tensors[:i])


def test_the_same_learngene_twice_gives_the_same_descendants():
    supernet = learngene(StageShared(), 16)
    first, second = (of_depth(supernet, 7, StageShared()).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_subnets_of_two_depths_are_alive_at_once():
    supernet = learngene(StageShared((1, 2, 1)), 2, 4, 9)
    archs = [supernet.space.largest, supernet.space.smallest]
    subnets = [supernet.subnet(arch) for arch in archs]
    x = pictures()
    with torch.no_grad():
        for arch, subnet in zip(archs, subnets, strict=True):
            assert_equal(subnet(x), supernet.extract(arch)(x))


# -- fitting -------------------------------------------------------------------------------------------------


def test_a_fit_to_an_expanded_network_gives_the_instances_back():
    scheme = StageShared((2, 1, 3))
    supernet = learngene(scheme, 6)
    fitted = scheme.fit(supernet.extract(supernet.space.largest).state_dict())
    assert fitted.keys() == supernet.shared_state().keys()
    for name, value in supernet.shared_state().items():
        torch.testing.assert_close(fitted[name], value.detach())
