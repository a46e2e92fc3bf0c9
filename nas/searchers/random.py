"""Random search without repetition: the baseline that every searcher has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.searchers.searcher import Problem, Searcher, Seen, extremes
from search_spaces import Population


class Random:
    """Archs drawn uniformly per choice among those within the limits; the extremes of the space first."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._seen = Seen(problem.space, problem.violation, np.random.default_rng([problem.seed, 2]))
        self._first = extremes(problem)

    def ask(self) -> Population:
        """A generation of archs that were not told."""
        extremes = self._first if not len(self._seen) else self._first[:0]
        rest = self._seen.fresh(self._problem.population - len(extremes), but=extremes)
        return np.concatenate([extremes, rest])

    def tell(
        self, population: Population, values: NDArray[np.float64], violation: NDArray[np.float64]
    ) -> None:
        """Remembers what need not be drawn again."""
        self._seen.add(population)


def searcher(problem: Problem) -> Searcher:
    """Random search for `problem`."""
    return Random(problem)
