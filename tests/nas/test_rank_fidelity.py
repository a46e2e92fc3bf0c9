"""Kendall's tau against scipy, and what the rest of an audit's numbers mean."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.cost_spread import spread_over_cost
from nas.rank_fidelity import bootstrap_tau, fidelity, kendall_tau, monotone_share
from search_spaces import Choice, SearchSpace, mobilenet_v3, vit
from search_spaces.nesting import grid

stats = pytest.importorskip("scipy.stats")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
def test_tau_is_that_of_scipy_with_ties_too(pairs) -> None:
    a, b = np.array(pairs).T
    mine, theirs = kendall_tau(a, b), stats.kendalltau(a, b).statistic
    assert (math.isnan(mine) and math.isnan(theirs)) or math.isclose(mine, theirs, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [3, 1, 2, 5, 4], 0.4),
        ([12, 2, 1, 12, 2], [1, 4, 7, 1, 0], -0.4714045),
    ],
)
def test_tau_of_known_series(a, b, tau) -> None:
    assert kendall_tau(a, b) == pytest.approx(tau, abs=1e-6)
    assert kendall_tau(b, a) == kendall_tau(a, b)


def test_series_without_an_order_have_none_and_unequal_ones_are_refused() -> None:
    assert math.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))
    assert math.isnan(kendall_tau([1], [1]))
    assert all(map(math.isnan, bootstrap_tau([1, 1, 1], [1, 2, 3], resamples=20)))
    with pytest.raises(ValueError, match="3 and one of 2"):
        kendall_tau([1, 2, 3], [1, 2])


def test_the_interval_holds_tau_repeats_with_its_seed_and_narrows_with_more_networks() -> None:
    rng = np.random.default_rng(0)

    def series(n):
        a = rng.normal(size=n)
        return a, a + rng.normal(size=n) * 0.7

    few, many = series(10), series(80)
    widths = []
    for a, b in (few, many):
        low, high = bootstrap_tau(a, b, resamples=400)
        assert low < kendall_tau(a, b) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert bootstrap_tau(*few, seed=1) == bootstrap_tau(*few, seed=1)
    assert bootstrap_tau([1, 2, 3, 4], [1, 2, 3, 4], resamples=50) == (1.0, 1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Normal series of correlation 0.8: tau is 2 / pi * asin(0.8) = 0.590."""
    rng, hits = np.random.default_rng(1), 0
    for trial in range(60):
        a = rng.normal(size=30)
        low, high = bootstrap_tau(a, 0.8 * a + 0.6 * rng.normal(size=30), seed=trial, resamples=200)
        hits += low <= 2 / math.pi * math.asin(0.8) <= high
    assert hits >= 50


def test_fidelity_of_known_scores() -> None:
    shared, alone = np.array([0.5, 0.9, 0.7, 0.6]), np.array([0.7, 0.8, 0.95, 0.75])
    found = fidelity(shared, alone, np.array([4, 3, 2, 1]), np.array([1, 4, 3, 2]))
    assert found.tau == kendall_tau(shared, alone) == pytest.approx(2 / 3)
    assert found.tau_macs == pytest.approx(2 / 3)
    assert found.tau_params == kendall_tau([4, 3, 2, 1], alone)
    assert found.gap == pytest.approx(0.125)
    assert found.regret == pytest.approx(0.15)
    assert found.monotone == 1.0
    json.dumps(fidelity(np.ones(3), alone[:3], *[np.arange(3)] * 2).as_dict(), allow_nan=False)


def test_steps_up_in_cost_that_lose_are_counted() -> None:
    assert monotone_share([1, 2, 3, 4, 5], [1, 2, 2, 1, 5]) == 0.75
    assert monotone_share([3, 1, 2], [3, 1, 2]) == 1.0
    assert math.isnan(monotone_share([1], [1]))


@pytest.mark.parametrize(
    "space",
    [
        mobilenet_v3.space(
            image_size=16, channels=1, classes=10, depths=(1, 2), kernels=(3,), resolutions=(8, 16)
        ),
        vit.space(image_size=16, channels=1, classes=10),
    ],
)
def test_networks_are_spread_over_the_whole_cost(space) -> None:
    archs = spread_over_cost(space, 12)
    assert len(set(archs)) == 12
    assert (archs[0], archs[-1]) == (space.smallest, space.largest)
    macs = space.costs(space.index(archs)).macs
    assert (np.diff(macs) >= 0).all()
    gaps = np.diff(np.log(macs))
    assert gaps.max() < 3 * (np.log(macs[-1]) - np.log(macs[0])) / 11
    assert spread_over_cost(space, 12) == archs
    assert spread_over_cost(space, 12, seed=1) != archs


def test_networks_can_be_drawn_from_a_list_alone() -> None:
    space = vit.space(image_size=16, channels=1, classes=10)
    members = grid(space, ("depth", "*.heads", "*.mlp_ratio"))
    archs = spread_over_cost(space, 8, among=members)
    assert len(set(archs)) == 8
    assert set(archs) <= set(members)
    assert (archs[0], archs[-1]) == (members[0], members[-1])


def test_a_space_with_fewer_networks_gives_all_it_has() -> None:
    from torch import nn

    def build(arch):
        return nn.Conv2d(1, arch["width"], 1)

    space = SearchSpace("few", [Choice("width", (1, 2, 3, 4))], build, input_shape=(1, 4, 4))
    assert [a["width"] for a in spread_over_cost(space, 12)] == [1, 2, 3, 4]
    assert [a["width"] for a in spread_over_cost(space, 3)][::2] == [1, 4]
    alone = SearchSpace("one", [Choice("width", (2,))], build, input_shape=(1, 4, 4))
    assert len(spread_over_cost(alone, 12)) == 1
