"""Nested archs: granularities, grids, and what they promise of one another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Choice, SearchSpace, SpaceError, vit
from search_spaces.minimum_slope import ladder, minimum_slope
from search_spaces.nesting import dimensions, granularity, grid, largest_within, levels, matching

FOUR = vit.space(
    image_size=16,
    channels=1,
    classes=4,
    depths=(5,),
    embed_dims=(16,),
    heads=(2,),
    head_dim=8,
    mlp_ratios=(0.5, 1.0, 2.0, 4.0),
)
SORTED = vit.space(
    image_size=16,
    channels=1,
    classes=4,
    depths=(1, 2, 3, 4),
    embed_dims=(8, 16, 24, 32),
    heads=(1, 2),
    head_dim=8,
    mlp_ratios=(0.5, 1.0, 2.0, 3.0, 4.0),
)


def ratios(arch) -> list[float]:
    return [arch[f"block{b}.mlp_ratio"] for b in range(1, arch["depth"] + 1)]


def bare(choices) -> SearchSpace:
    return SearchSpace("bare", choices, lambda arch: None, input_shape=(1, 4, 4))


def test_a_granularity_is_one_option_in_all_layers_and_the_rest_at_its_largest() -> None:
    assert levels(FOUR, ("*.mlp_ratio",)) == 4
    for level, ratio in enumerate((0.5, 1.0, 2.0, 4.0)):
        assert ratios(granularity(FOUR, level)) == [ratio] * 5
    assert granularity(FOUR, 3) == FOUR.largest
    wide = granularity(SORTED, 0, ("*.heads",))
    assert (wide["depth"], wide["block4.heads"], wide["block4.mlp_ratio"]) == (4, 1, 4.0)


def test_wrong_patterns_and_levels_are_named() -> None:
    with pytest.raises(SpaceError, match=r"matches '\*.ffn'.*known: \*.heads, \*.mlp_ratio"):
        granularity(FOUR, 0, ("*.ffn",))
    with pytest.raises(SpaceError, match="granularity 4 of 'vit' is none of 0 to 3"):
        granularity(FOUR, 4)
    uneven = bare([Choice("a.width", (1, 2)), Choice("b.width", (1, 2, 3))])
    with pytest.raises(SpaceError, match=r"a.width has 2 options and b.width 3"):
        grid(uneven)
    with pytest.raises(SpaceError, match="matches"):
        matching(bare([Choice("op", ("conv", "skip"))]), ("op",))
    many = bare([Choice(f"c{i}", tuple(range(10))) for i in range(6)])
    with pytest.raises(SpaceError, match="1,000,000 members"):
        grid(many)


def test_a_grid_of_160_has_each_member_once_and_all_of_them_run() -> None:
    import torch

    assert dimensions(SORTED) == ("depth", "embed_dim", "*.heads", "*.mlp_ratio")
    members = grid(SORTED)
    assert len(members) == len(set(members)) == 4 * 4 * 2 * 5 == 160
    assert (members[0], members[-1]) == (SORTED.smallest, SORTED.largest)
    for arch in members:
        assert SORTED.build(arch)(SORTED.example(arch)).shape == (1, 4)
        assert len({*ratios(arch)}) == 1
    assert torch.is_grad_enabled()


def test_dimensions_that_are_named_vary_and_the_others_stay_at_their_largest() -> None:
    members = grid(SORTED, ("depth", "*.heads"))
    assert len(members) == 8
    assert {(a["embed_dim"], a["block1.mlp_ratio"]) for a in members} == {(32, 4.0)}


def test_members_that_a_condition_makes_equal_are_one() -> None:
    space = bare([Choice("depth", (1, 2)), Choice("layer2.width", (4, 8), when={"depth": (2,)})])
    assert len(grid(space)) == 3


def test_a_smaller_member_is_nowhere_larger() -> None:
    """b <= b' in every bound means the weights of b are prefixes: checked on shapes, tensor by tensor."""
    members = grid(SORTED)
    shapes = {a: {n: p.shape for n, p in SORTED.skeleton(a).named_parameters()} for a in members}
    index = {a: tuple(c.position(a[c.name]) if c.name in a else -1 for c in SORTED.choices) for a in members}
    rng = np.random.default_rng(0)
    compared = 0
    for i, j in rng.integers(0, 160, (600, 2)):
        small, large = members[i], members[j]
        if all(a <= b for a, b in zip(index[small], index[large], strict=True)):
            compared += 1
            assert shapes[small].keys() <= shapes[large].keys()
            for name, shape in shapes[small].items():
                assert all(a <= b for a, b in zip(shape, shapes[large][name], strict=True)), name
    assert compared > 20


@given(st.integers(0, 400_000))
def test_the_largest_within_a_budget_is_feasible_and_none_larger_is(budget: int) -> None:
    members = grid(SORTED)
    params = SORTED.costs(SORTED.index(members)).params
    if budget < params.min():
        with pytest.raises(SpaceError, match="none of 160 nested archs costs at most"):
            largest_within(SORTED, members, budget)
        return
    found = largest_within(SORTED, members, budget)
    cost = params[members.index(found)]
    assert cost == params[params <= budget].max()


def test_a_larger_budget_never_gives_a_smaller_member() -> None:
    members = grid(SORTED)
    population = SORTED.index(members)
    macs = SORTED.costs(population).macs
    chosen = [
        largest_within(SORTED, members, b, lambda p: SORTED.costs(p).macs.astype(float))
        for b in np.linspace(macs.min(), macs.max(), 50)
    ]
    costs = [macs[members.index(a)] for a in chosen]
    assert costs == sorted(costs)
    assert chosen[-1] == SORTED.largest


def test_the_ladder_climbs_one_layer_at_a_time_from_the_deepest() -> None:
    rungs = ladder(FOUR)
    assert len(rungs) == 3 * 5 + 1
    for level in range(4):
        assert granularity(FOUR, level) in rungs
    params = FOUR.costs(FOUR.index(rungs)).params
    assert (np.diff(params) > 0).all()
    for arch in rungs:
        widths = ratios(arch)
        assert widths == sorted(widths), "non-decreasing with depth"
        used = sorted({(0.5, 1.0, 2.0, 4.0).index(w) for w in widths})
        assert len(used) <= 2
        assert used[-1] - used[0] <= 1
    for low, high in pairwise(rungs):
        assert sum(a != b for a, b in zip(ratios(low), ratios(high), strict=True)) == 1


@given(st.floats(0, 1))
def test_the_minimum_slope_fits_the_budget_and_one_more_upgrade_does_not(share: float) -> None:
    rungs = ladder(FOUR)
    params = FOUR.costs(FOUR.index(rungs)).params
    budget = params[0] + share * (params[-1] - params[0])
    at = rungs.index(minimum_slope(FOUR, budget))
    assert params[at] <= budget
    assert at == len(rungs) - 1 or params[at + 1] > budget


def test_a_budget_below_the_smallest_granularity_is_refused() -> None:
    with pytest.raises(SpaceError, match="the smallest granularity of 'vit' costs"):
        minimum_slope(FOUR, 10)
    with pytest.raises(SpaceError, match="over the budget"):
        minimum_slope(FOUR, 10, lambda p: FOUR.costs(p).macs.astype(float))
