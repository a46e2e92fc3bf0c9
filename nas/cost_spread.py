"""A few archs that stand for a whole space: spread over its range of cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from nas.searchers.searcher import everything
from search_spaces import Arch, Population, SearchSpace

_POOL = 4096


def spread_over_cost(space: SearchSpace, n: int, seed: int = 0, among: Sequence[Arch] = ()) -> list[Arch]:
    """The smallest, the largest, and n - 2 random archs between them, one per stratum of multiply-adds.

    Strata are equally wide on a logarithmic scale; one that no arch falls into gives its place to the arch
    nearest to its middle. In order of multiply-adds; fewer than n where there are no more. Out of `among`,
    smallest first, where it is given, else out of the whole space.
    """
    rng = np.random.default_rng([seed, 5])
    every = space.index(among) if among else everything(space)
    pool = _pool(space, rng) if every is None else every[rng.permutation(len(every))]
    least, most = (among[0], among[-1]) if among else (space.smallest, space.largest)
    ends = space.index(dict.fromkeys([least, most]))
    taken = {row.tobytes() for row in ends}
    pool = pool[[row.tobytes() not in taken for row in pool]]
    chosen = list(ends)
    between = min(n - len(ends), len(pool))
    if between > 0:
        cost = np.log(np.maximum(space.costs(pool).macs, 1))
        low, high = np.sort(np.log(np.maximum(space.costs(ends[[0, -1]]).macs, 1)))
        edges = np.linspace(low, high, between + 1)
        free = np.ones(len(pool), dtype=bool)
        for left, right in pairwise(edges):
            inside = np.flatnonzero(free & (cost >= left) & (cost <= right))
            far = np.where(free, np.abs(cost - (left + right) / 2), np.inf)
            at = int(inside[0]) if len(inside) else int(np.argmin(far))  # the pool is in random order
            free[at] = False
            chosen.append(pool[at])
    rows = np.stack(chosen)
    counted = space.costs(rows)
    return space.archs(rows[np.lexsort((counted.params, counted.macs))])


def _pool(space: SearchSpace, rng: np.random.Generator) -> Population:
    """Random archs that reach to both ends of the cost: choices drawn evenly bunch up in the middle.

    Each arch draws a level for all of its choices first, and each choice scatters around it.
    """
    options = np.array([len(choice.options) for choice in space.choices])
    level = rng.random((_POOL, 1))
    leaning = rng.binomial(options - 1, level, size=(_POOL, len(options))).astype(np.int16)
    pool = np.unique(space.canonical(leaning), axis=0)
    return pool[rng.permutation(len(pool))]
