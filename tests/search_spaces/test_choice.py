"""A choice checks its options and says what is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from search_spaces import Choice, SpaceError, did_you_mean


def test_position_and_options():
    choice = Choice("kernel", [3, 5, 7])
    assert choice.options == (3, 5, 7)
    assert [choice.position(option) for option in (3, 5, 7)] == [0, 1, 2]
    assert choice.ordinal
    assert not Choice("op", ("conv", "skip")).ordinal


def test_an_option_that_is_none_is_named_with_those_allowed():
    with pytest.raises(SpaceError, match=r"^kernel = 4 is not an option \(options: 3, 5, 7\)$"):
        Choice("kernel", (3, 5, 7)).position(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "choice 'c' has no options"),
        ((1, 2, 1), "choice 'c' lists an option twice: 1, 2, 1"),
        ((1, 1.0), "lists an option twice"),
        (range(30_001), "30001 options; at most 30000"),
        ((False, True), r"option False \(bool\)"),
        ((None, 1), r"option None \(NoneType\)"),
        ((1.0, float("nan")), r"option nan \(float\)"),
        ((1.0, float("inf")), r"option inf \(float\)"),
        (np.arange(3), r"option .*0.* \(int64\)"),
    ],
)
def test_options_that_have_no_json_or_no_order_are_refused(options, message):
    with pytest.raises(SpaceError, match=message):
        Choice("c", options)


@pytest.mark.parametrize("allowed", ["conv", 3])
def test_a_condition_that_is_not_a_list_of_options_is_refused(allowed):
    """`when={"op": "conv"}` once meant the options c, o, n and v: never in force."""
    with pytest.raises(SpaceError, match=r"when 'op' takes a list of options"):
        Choice("c", (1, 2), when={"op": allowed})


def test_equal_choices_have_equal_hashes():
    a = Choice("c", (1, 2), when={"x": [1], "y": (2,)})
    b = Choice("c", [1, 2], when={"y": [2], "x": (1,)})
    assert a == b
    assert hash(a) == hash(b)


def test_frozen():
    with pytest.raises(AttributeError):
        Choice("c", (1, 2)).name = "d"  # type: ignore[misc]


def test_did_you_mean():
    assert did_you_mean("kernal", ["kernel", "depth"]) == "; did you mean 'kernel'? (known: depth, kernel)"
    assert did_you_mean("zzz", ["kernel", "depth"]) == "; known: depth, kernel"
    assert did_you_mean("VIT", ["vit"]).startswith("; did you mean 'vit'?")
    assert did_you_mean("x", []) == ""
    assert did_you_mean("c7x", [f"c{i}" for i in range(100)]).endswith(", ...)")


def test_numbers_that_do_not_rise_are_refused() -> None:
    """The largest network is made of last options: [6, 2] as depths made it the shallowest one."""
    with pytest.raises(SpaceError, match="'depth' has options 6, 2; give them from small to large"):
        Choice("depth", (6, 2))
    assert Choice("op", ("swish", "relu")).options == ("swish", "relu")
