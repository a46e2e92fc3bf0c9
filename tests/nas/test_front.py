"""The non-dominated set, the knee, the hypervolume, and the picks of the command line."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.front import hypervolume, knee, minimised, nondominated
from nas.pick import Limit, choose, parse_amount, parse_pick
from search_spaces.errors import InputError

SMALL_POINTS = st.tuples(st.integers(1, 25), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 6))
)
TABLE = {
    "accuracy": [0.90, 0.95, 0.97, 0.97],
    "latency_ms": [1.0, 2.0, 4.0, 3.0],
    "params": [1e6, 2e6, 3e6, 4e6],
}
OBJECTIVES = {"accuracy": "max", "latency_ms": "min"}


def brute_force(points):
    """By the definition, a pair at a time."""
    return np.array([not any(all(b <= a) and any(b < a) for b in points) for a in points], dtype=bool)


def steps(n):
    """n points of the front of ZDT1."""
    first = np.linspace(0, 1, n)
    return np.stack([first, 1 - np.sqrt(first)], axis=1)


@given(SMALL_POINTS)
def test_nondominated_agrees_with_brute_force(points):
    np.testing.assert_array_equal(nondominated(points), brute_force(points))


@given(SMALL_POINTS, st.randoms(use_true_random=False))
def test_nondominated_does_not_depend_on_the_order(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    np.testing.assert_array_equal(nondominated(points)[order], nondominated(points[order]))


def test_peeling_fronts_sorts_the_published_example():
    points = np.array([(1, 3), (2, 2), (3, 1), (3, 3), (4, 2), (4, 4)])
    left, fronts = np.arange(6), []
    while left.size:
        best = nondominated(points[left])
        fronts.append(set(left[best].tolist()))
        left = left[~best]
    assert fronts == [{0, 1, 2}, {3, 4}, {5}]


def test_equal_points_keep_each_other_and_infinite_ones_lose():
    points = [(1, 2), (1, 2), (np.inf, 0), (np.inf, 0), (2, np.inf)]
    assert nondominated(points).tolist() == [True, True, True, True, False]


def test_a_value_that_is_not_a_number_is_refused_with_its_row():
    with pytest.raises(InputError, match="point 1 has a value that is not a number"):
        nondominated([(0, 1), (np.nan, 0)])


def test_no_points():
    assert nondominated(np.empty((0, 2))).tolist() == []
    assert hypervolume(np.empty((0, 2)), (1, 1)) == 0
    with pytest.raises(InputError, match="at least one point"):
        knee(np.empty((0, 2)))


def test_the_knee_is_the_bend():
    assert knee([(0, 10), (1, 2), (5, 1), (10, 0)]) == 1
    # Dominated points stretch nothing: with them the range would be 100 and the bend elsewhere.
    assert knee([(0, 10), (1, 2), (5, 1), (10, 0), (100, 11), (11, 100)]) == 1


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_knee_of_few_or_level_points_is_the_best_in_the_first_objective(m):
    assert knee(np.ones((1, m))) == 0
    assert knee(np.ones((3, m))) == 0
    assert knee(1 - np.eye(m)) == 0  # m points with equal distances
    assert knee((1 - np.eye(m))[::-1]) == m - 1
    level = np.linspace(0, 1, 11)
    assert knee(np.stack([level, 1 - level], axis=1)) == 0  # equal up to rounding


@given(SMALL_POINTS, st.integers(1, 5), st.integers(-3, 3))
def test_the_knee_is_on_the_front_and_indifferent_to_units(points, scale, shift):
    row = knee(points)
    assert nondominated(points)[row]
    moved = points.astype(float)
    moved[:, 0] = moved[:, 0] * 2.0**scale + shift
    assert knee(moved) == row


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([(1, 3), (2, 2), (3, 1)], (4, 4), 6),
        ([(1, 3), (2, 2), (3, 1), (3, 3)], (4, 4), 6),
        ([(1, 2, 3), (2, 3, 1), (3, 1, 2)], (4, 4, 4), 13),
        ([(1, 1, 1)], (4, 4, 4), 27),
        ([(1, 3), (2, 2), (3, 1), (5, 0), (0, 4)], (4, 4), 6),
        ([(5, 5)], (4, 4), 0),
        (steps(11), (1.1, 1.1), 0.8205093),
        (steps(101), (1.1, 1.1), 0.8714629),
    ],
)
def test_hypervolume_of_known_fronts(points, reference, volume):
    assert hypervolume(points, reference) == pytest.approx(volume, abs=5e-8)


@given(SMALL_POINTS, st.randoms(use_true_random=False))
def test_hypervolume_grows_with_points_and_ignores_order_and_copies(points, random):
    reference = np.full(points.shape[1], 5.0)
    whole = hypervolume(points, reference)
    assert hypervolume(points[: len(points) // 2], reference) <= whole + 1e-9
    again = np.concatenate([points, points])[random.sample(range(2 * len(points)), 2 * len(points))]
    assert hypervolume(again, reference) == pytest.approx(whole)
    wide = np.array([3.0] + [1.0] * (points.shape[1] - 1))
    assert hypervolume(points * wide, reference * wide) == pytest.approx(3 * whole)


def test_a_reference_of_another_length_is_refused():
    with pytest.raises(InputError, match="3 values but the points have 2 objectives"):
        hypervolume([(1, 2)], (3, 3, 3))


def test_minimised_turns_signs_and_names_what_is_missing():
    matrix = minimised(TABLE, OBJECTIVES)
    np.testing.assert_array_equal(matrix[0], [-0.90, 1.0])
    with pytest.raises(InputError, match="unknown objective 'latency'; did you mean 'latency_ms'"):
        minimised(TABLE, {"latency": "min"})


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("0.97", 0.97), ("1e-3", 1e-3), (" 2.5k ", 2500), ("2M", 2e6), ("1.5 G", 1.5e9), (".5", 0.5)],
)
def test_amounts(text, value):
    assert parse_amount(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "nan", "inf", "2m", "2T", "1e999", "0x10", "1_000", "__import__('os')"])
def test_what_is_no_amount(text):
    with pytest.raises(InputError, match="number"):
        parse_amount(text)


def test_picks_read_as_written():
    assert parse_pick("knee").limits == ()
    assert parse_pick(" accuracy>0.97, params <= 2M").limits == (
        Limit("accuracy", ">", 0.97),
        Limit("params", "<=", 2e6),
    )
    assert parse_pick(str(parse_pick("latency_ms>=2"))) == parse_pick("latency_ms>=2")


@pytest.mark.parametrize(
    "text", ["", "best", "latency_ms", "latency_ms=2", "latency_ms<", "<2", "a<1,,b<2", "a==1"]
)
def test_what_is_no_pick(text):
    with pytest.raises(InputError, match="write knee, or comparisons"):
        parse_pick(text)


@given(st.text(max_size=30))
def test_any_text_is_a_pick_or_an_input_error(text):
    with contextlib.suppress(InputError):
        assert parse_pick(text) == parse_pick(str(parse_pick(text)))


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("knee", 1),
        ("latency_ms<2", 0),
        ("latency_ms<=2", 1),
        ("latency_ms<100", 3),  # as accurate as row 2, and faster
        ("params<3.5M", 2),
        ("accuracy>0.9, params<2.5M", 1),
    ],
)
def test_choices(text, row):
    assert choose(parse_pick(text), TABLE, OBJECTIVES) == row


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency<2", "unknown name 'latency' in pick 'latency < 2'; did you mean 'latency_ms'"),
        ("latency_ms<0.5", "no candidate has latency_ms < 0.5; the lowest latency_ms seen is 1$"),
        ("accuracy>0.99", "the highest accuracy seen is 0.97$"),
        (
            "accuracy>0.96, latency_ms<3",
            "no candidate has accuracy > 0.96 and latency_ms < 3; the highest accuracy seen is 0.95 where "
            "latency_ms < 3; the lowest latency_ms seen is 3 where accuracy > 0.96$",
        ),
        (
            "accuracy>0.99, latency_ms<0.5",
            "the highest accuracy seen is 0.97; the lowest latency_ms seen is 1$",
        ),
    ],
)
def test_a_pick_that_nothing_meets_says_what_came_closest(text, message):
    with pytest.raises(InputError, match=message):
        choose(parse_pick(text), TABLE, OBJECTIVES)


def test_nothing_to_pick_from():
    with pytest.raises(InputError, match="no candidate was evaluated"):
        choose(parse_pick("knee"), {"accuracy": [], "latency_ms": []}, OBJECTIVES)
