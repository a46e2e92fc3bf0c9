"""An arch is one key: canonical, immutable, the same in every process."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Arch, SpaceError

options = st.one_of(
    st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
)
assignments = st.dictionaries(st.text(min_size=1, max_size=5), options, max_size=5)


@given(assignments)
def test_json_round_trip(assignment):
    arch = Arch(assignment)
    again = Arch.from_json(arch.to_json())
    assert again == arch
    assert hash(again) == hash(arch)
    assert again.digest == arch.digest
    assert again.to_json() == arch.to_json()
    assert dict(arch) == assignment


@given(assignments, st.randoms())
def test_order_of_the_assignment_does_not_matter(assignment, random):
    items = list(assignment.items())
    random.shuffle(items)
    assert Arch(dict(items)).to_json() == Arch(assignment).to_json()
    assert Arch(dict(items)) == Arch(assignment)


def test_json_is_sorted_and_compact():
    assert Arch({"b": 2.5, "a": 1, "c": "x"}).to_json() == '{"a":1,"b":2.5,"c":"x"}'


def test_equal_archs_have_equal_json_and_digests():
    assert Arch({"a": 1}) != Arch({"a": 1.0})
    assert Arch({"a": 1}) != {"a": 1}
    assert len({Arch({"a": 1}), Arch({"a": 1}), Arch({"a": 2})}) == 2


def test_immutable():
    given = {"a": 1}
    arch = Arch(given)
    given["a"] = 2
    assert arch["a"] == 1
    with pytest.raises(TypeError):
        arch["a"] = 3
    with pytest.raises(TypeError):
        del arch["a"]


def test_integer():
    assert Arch({"a": 3}).integer("a") == 3
    with pytest.raises(SpaceError, match=r"a = 'x' is not an integer"):
        Arch({"a": "x"}).integer("a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "3",
        "null",
        '"a"',
        '{"a":null}',
        '{"a":true}',
        '{"a":[1]}',
        '{"a":{"b":1}}',
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":' + "1" * 5000 + "}",
        "[" * 100_000,
    ],
)
def test_from_json_refuses_what_is_no_arch(text):
    with pytest.raises(SpaceError, match="an arch ") as caught:
        Arch.from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_copies_and_pickles_are_equal():
    arch = Arch({"a": 1, "b": "x"})
    for again in (copy.copy(arch), copy.deepcopy(arch), pickle.loads(pickle.dumps(arch))):
        assert again == arch
        assert {arch: "found"}[again] == "found"


def test_digest_and_pickle_hold_across_processes_with_other_string_hashes():
    arch = Arch({"kernel": 3, "activation": "relu", "ratio": 3.5})
    program = (
        "import sys, pickle; from search_spaces import Arch\n"
        "given = pickle.loads(sys.stdin.buffer.read())\n"
        "mine = Arch({'ratio': 3.5, 'activation': 'relu', 'kernel': 3})\n"
        "assert {mine: 1}[given] == 1\n"
        "print(given.digest, mine.to_json())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps(arch),
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {f"{arch.digest} {arch.to_json()}\n".encode()}
    assert json.loads(arch.to_json())["ratio"] == 3.5
