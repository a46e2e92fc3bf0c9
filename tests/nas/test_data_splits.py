"""Splits are disjoint, complete, stratified, and the test part is the same for every seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data.splits import split
from search_spaces.errors import InputError

labels = st.lists(st.integers(0, 4), min_size=0, max_size=150).map(
    lambda extra: np.array([k for k in range(5) for _ in range(3)] + extra, np.int64)
)
fraction = st.floats(0.05, 0.45)


@settings(deadline=None, max_examples=60)
@given(labels, fraction, fraction, st.integers(0, 1000))
def test_three_way_split(labels: np.ndarray, validation: float, test: float, seed: int) -> None:
    parts = split(labels, seed=seed, validation=validation, test=test)
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(together.tolist()) == list(range(len(labels)))
    for part, share in ((parts.validation, validation), (parts.test, test)):
        for label in np.unique(labels):
            count, all_of_it = (labels[part] == label).sum(), (labels == label).sum()
            assert count >= 1
            assert abs(count - share * all_of_it) < 1
    assert set(labels[parts.train]) == set(labels)


@settings(deadline=None, max_examples=20)
@given(labels, st.integers(0, 1000), st.integers(0, 1000))
def test_the_test_part_does_not_depend_on_the_seed(labels: np.ndarray, one: int, other: int) -> None:
    a = split(labels, seed=one, validation=0.2, test=0.2)
    b = split(labels, seed=other, validation=0.2, test=0.2)
    assert np.array_equal(a.test, b.test)
    again = split(labels, seed=one, validation=0.2, test=0.2)
    assert np.array_equal(a.validation, again.validation)


def test_another_seed_gives_another_validation_part() -> None:
    labels = np.arange(200) % 4
    a, b = (split(labels, seed=seed, validation=0.2, test=0.2) for seed in (0, 1))
    assert not np.array_equal(a.validation, b.validation)


def test_parts_of_the_source_are_kept() -> None:
    labels = np.arange(100) % 5
    test, validation = np.arange(80, 100), np.arange(60, 80)
    parts = split(labels, seed=0, validation=0.25, test=0.2, own_test=test)
    assert np.array_equal(parts.test, test)
    assert parts.sizes == {"train": 60, "validation": 20, "test": 20}
    parts = split(labels, seed=0, validation=0.2, test=0.2, own_validation=validation, own_test=test)
    assert np.array_equal(parts.train, np.arange(60))
    assert np.array_equal(parts.validation, validation)


def test_the_last_image_of_a_class_stays_in_training() -> None:
    labels = np.array([0] * 20 + [1])
    assert 20 in split(labels, seed=0, validation=0.3, test=0.3).train


@pytest.mark.parametrize(
    ("validation", "test", "words"),
    [(0.0, 0.2, "validation = 0"), (0.2, 1.0, "test = 1"), (0.6, 0.4, "nothing to train on")],
)
def test_fractions_out_of_range(validation: float, test: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        split(np.arange(40) % 2, seed=0, validation=validation, test=test)


def test_too_few_images() -> None:
    with pytest.raises(InputError, match="too few: the validation split would be empty"):
        split(np.array([0, 0, 1, 1]), seed=0, validation=0.2, test=0.2)
