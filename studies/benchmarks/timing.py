"""Seconds that things take, in a way that a busy machine disturbs little."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one run, from start to return."""
    start = time.perf_counter()
    kept = run()
    taken = time.perf_counter() - start
    del kept  # what it made is freed outside
    return taken


def interleaved(*runs: Callable[[], object], repeats: int) -> list[list[float]]:
    """Seconds of each run, [runs][repeats]. They take turns, so that a busy machine slows all alike."""
    rounds = [[seconds(run) for run in runs] for _ in range(repeats)]
    return [list(column) for column in zip(*rounds, strict=True)]
