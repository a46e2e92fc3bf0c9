from __future__ import annotations

import threading
import time

import pytest

from supernets.prefetch import ahead


def test_the_items_come_in_order_and_few_are_made_ahead() -> None:
    made: list[int] = []

    def numbers():
        for n in range(9):
            made.append(n)
            yield n

    items = ahead(numbers(), depth=2)
    assert [next(items), next(items)] == [0, 1]
    time.sleep(0.05)
    assert len(made) <= 5  # two taken, two that wait, one in the hand
    assert list(items) == list(range(2, 9))


def test_an_error_comes_in_its_place_and_the_thread_ends() -> None:
    def numbers():
        yield 1
        raise OSError("gone")

    items = ahead(numbers())
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)
    left = ahead(iter(range(100)))
    next(left)
    left.close()
    time.sleep(0.3)
    assert not [t for t in threading.enumerate() if t.name == "batches"]
