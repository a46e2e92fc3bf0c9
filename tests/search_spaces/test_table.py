"""A derived table says what measuring each arch says, for any measure that is a sum over parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from conditional_spaces import chain_space, conditional_spaces, every_arch, positions
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Choice, Layer, SearchSpace, SpaceError
from search_spaces.table import AdditiveTable

Measure = Callable[[Sequence[Layer]], Mapping[str, float | Sequence[float]]]


def assert_exact(space: SearchSpace, measure: Measure, columns: int = 1) -> AdditiveTable:
    table = space.table(measure, columns)
    archs = list(every_arch(space))
    population = space.index(archs)
    direct = np.array(
        [np.sum([np.atleast_1d(v) for v in measure(space.layers(arch)).values()], axis=0) for arch in archs]
    ).reshape(len(archs), columns)
    found = table(population)
    assert found.dtype == np.float64
    wrong = np.flatnonzero(~np.isclose(found, direct, rtol=1e-9).all(1))
    assert not len(wrong), (archs[wrong[0]], found[wrong[0]], direct[wrong[0]])
    return table


def test_costs_of_random_archs_of_every_space_equal_direct_measurement(any_space, rng):
    population = any_space.sample(20, rng)
    table = any_space._costs
    assert table.tabulated
    assert np.array_equal(table(population), np.array([table.direct(row) for row in population]))


@settings(max_examples=40)
@given(conditional_spaces, st.data())
def test_any_sum_over_parts_of_a_random_space(space, data):
    """Parts of up to three choices each, with a random number for every combination, absent where -1."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    names = [c.name for c in space.choices]
    parts = data.draw(st.lists(st.lists(st.sampled_from(names), max_size=3, unique=True), max_size=5))
    values = [rng.normal(size=(5,) * len(part) + (2,)) for part in parts]

    def measure(layers: Sequence[Layer]) -> Mapping[str, Sequence[float]]:
        at = positions(layers)
        return {"always": (1.0, 2.0)} | {
            f"part{i}": value[tuple(at.get(name, -1) for name in part)]
            for i, (part, value) in enumerate(zip(parts, values, strict=True))
            if not part or part[0] in at
        }

    assert_exact(space, measure, columns=2)


def gates(*sizes: int) -> SearchSpace:
    return chain_space([Choice(f"c{j}", range(size)) for j, size in enumerate(sizes)])


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (2, 2, 2), (3, 2, 3, 2), (3, 3, 3)])
def test_an_interaction_that_the_largest_does_not_show_is_found(sizes):
    """From the largest, no single choice changes the part that exists at the smallest options only."""

    def measure(layers: Sequence[Layer]) -> Mapping[str, float]:
        at = positions(layers)
        hidden = {"hidden": 5.0} if not any(at.values()) else {}
        return {"always": 1.0} | {name: float(i) for name, i in at.items()} | hidden

    assert_exact(gates(*sizes), measure)


def test_an_interaction_between_middle_options_is_found():
    """Choices of many options are probed at their ends and middle first."""
    rng = np.random.default_rng(3)
    values = rng.integers(0, 9, size=(7, 6)) * (np.arange(7)[:, None] % 3 == 1)

    def measure(layers: Sequence[Layer]) -> Mapping[str, float]:
        at = positions(layers)
        return {"pair": float(values[at["c0"], at["c1"]])}

    assert_exact(gates(7, 6), measure)


def test_a_part_that_only_some_archs_have():
    space = chain_space(
        [Choice("c0", (0, 1)), Choice("c1", (0, 1, 2), when={"c0": (0,)}), Choice("c2", (0, 1))]
    )

    def measure(layers: Sequence[Layer]) -> Mapping[str, float]:
        at = positions(layers)
        return {"rare": 10.0 * at["c1"] + at["c2"]} if "c1" in at else {"common": 1.0}

    assert_exact(space, measure)


def test_a_part_that_the_largest_lacks_is_probed_where_it_is():
    """What a part depends on shows only in archs that have it."""
    space = chain_space(
        [
            Choice("c0", range(4)),
            Choice("c1", range(4), when={"c0": (1, 2, 3)}),
            Choice("c2", (0, 1)),
            Choice("c3", (0, 1)),
            Choice("c4", (0,), when={"c1": (0,)}),
        ]
    )

    def measure(layers: Sequence[Layer]) -> Mapping[str, float]:
        at = positions(layers)
        return {"always": 1.0} | ({"rare": 3.0 + at["c2"]} if "c4" in at else {})

    assert "rare" not in measure(space.layers(space.largest))
    assert_exact(space, measure)


def test_a_choice_that_is_not_in_force_at_the_largest_is_probed_where_it_is():
    space = chain_space(
        [
            Choice("c0", range(4)),
            Choice("c1", range(3), when={"c0": (1,)}),
            Choice("c2", (0, 1), when={"c1": (0,)}),
        ]
    )

    def measure(layers: Sequence[Layer]) -> Mapping[str, float]:
        at = positions(layers)
        return {"part": 10.0 * at["c0"] + at.get("c2", -1)}

    assert_exact(space, measure)


def test_a_measure_of_nothing_and_a_constant():
    assert_exact(gates(2, 3), lambda layers: {"all": 3.0})
    assert gates(2, 3).table(lambda layers: {})(np.zeros((4, 2), dtype=np.int16)).tolist() == [[0.0]] * 4


def test_parts_that_see_too_many_choices_are_measured_arch_by_arch(rng):
    space = gates(*(3,) * 12)  # 4^12 combinations for one part

    def measure(layers: Sequence[Layer]) -> Mapping[str, Sequence[float]]:
        total = sum((i + 1) * 3 ** int(name[1:]) for name, i in positions(layers).items())
        return {"whole": (total, 1.0)}

    table = space.table(measure, 2)
    assert not table.tabulated
    population = space.sample(10, rng)
    expected = ((population.astype(int) + 1) * 3 ** np.arange(12)).sum(1)
    assert np.array_equal(table(population), np.stack([expected, np.ones(10)], axis=1))
    assert table(population[:0]).shape == (0, 2)


def test_a_measure_that_changes_by_itself_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(SpaceError, match="could not be tabulated"):
        gates(3, 3).table(lambda layers: {"noise": rng.normal()})


def test_an_empty_population(any_space):
    assert [len(column) for column in any_space.costs(any_space.index([]))] == [0, 0, 0, 0]
