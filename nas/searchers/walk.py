"""A walk along a list of archs, for searchers that know beforehand what is worth evaluating."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nas.searchers.searcher import Problem, Seen
from search_spaces import Arch, InputError, Population


class Walk:
    """Asks for the listed archs in order, those beyond the limits left out; then for nothing.

    first_only: stops as soon as one keeps all limits, also those that only an evaluation shows.

    Raises:
        InputError: none of the list is within the limits that are cheap to check.
    """

    def __init__(self, problem: Problem, archs: Iterable[Arch], *, first_only: bool = False) -> None:
        listed = problem.space.index(dict.fromkeys(archs))
        self._left = listed[problem.violation(listed) <= 0]
        self._seen = Seen(problem.space, problem.violation, np.random.default_rng(problem.seed))
        self._size, self._first_only = 1 if first_only else problem.population, first_only
        if not len(self._left):
            raise InputError(
                f"none of the {len(listed)} networks that this searcher knows is within the limits; raise "
                "them, or use --searcher nsga2"
            )

    def ask(self) -> Population:
        """The next archs of the list, as many as a generation has."""
        return self._seen.unseen(self._left)[: self._size]

    def tell(
        self, population: Population, values: NDArray[np.float64], violation: NDArray[np.float64]
    ) -> None:
        """Remembers how far it has come."""
        self._seen.add(population)
        if self._first_only and (violation <= 0).any():
            self._left = self._left[:0]
