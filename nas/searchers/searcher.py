"""What a searcher promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search_spaces import Arch, Population, SearchSpace

Violation: TypeAlias = Callable[[Population], NDArray[np.float64]]

_COUNTABLE = 100_000  # combinations of options up to which a space is listed rather than drawn from


@dataclass(frozen=True)
class Problem:
    """What a searcher is told about its task.

    Attributes:
        space: what to choose from.
        objectives: how many; all are minimised.
        violation: population [n, choices] -> [n], how far each arch is beyond the limits that can be checked
            without an evaluation; 0 is within them.
        population: archs per generation.
        seed: of everything drawn.
        limited: whether there is any limit; without one, a violation only ever marks a failed evaluation.
        listed: the archs that the supernet's training drew from, where they were a list.
    """

    space: SearchSpace
    objectives: int
    violation: Violation
    population: int
    seed: int
    limited: bool = True
    listed: tuple[Arch, ...] = ()


class Searcher(Protocol):
    """Ask and tell over populations.

    An implementer guarantees: proposals are canonical, never one that was told before, and depend only on the
    problem and on what was told, so that telling the same values again repeats the search in any process. A
    searcher is told exactly what it asked for, in the same order.
    """

    def ask(self) -> Population:
        """The archs to evaluate next, [n, choices]; none when there is nothing more to ask."""

    def tell(
        self, population: Population, values: NDArray[np.float64], violation: NDArray[np.float64]
    ) -> None:
        """Values [n, objectives], minimised, and total violation [n] of all limits; at most 0 is feasible."""


def extremes(problem: Problem) -> Population:
    """The largest and the smallest arch, as far as they are within the limits. [0 to 2, choices]"""
    both = problem.space.index(dict.fromkeys([problem.space.largest, problem.space.smallest]))
    return both[problem.violation(both) <= 0]


def everything(space: SearchSpace) -> Population | None:
    """Each arch of a small space once, [size, choices]; None for a space that is too large to list."""
    options = [len(choice.options) for choice in space.choices]
    if prod(options) > _COUNTABLE:
        return None
    combinations = np.stack(np.unravel_index(np.arange(prod(options)), options), axis=1)
    return np.unique(space.canonical(combinations), axis=0)


class Seen:
    """The archs that were told, and fresh ones in place of those proposed again."""

    _ROUNDS = 60  # of draws from a space that is too large to list
    _DRAWS = 3  # before a small space is listed

    def __init__(self, space: SearchSpace, violation: Violation, rng: np.random.Generator) -> None:
        self._space, self._violation, self._rng = space, violation, rng
        self._keys: set[bytes] = set()
        self._every = everything(space)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, population: Population) -> None:
        """Remembers a population."""
        self._keys.update(row.tobytes() for row in population)

    def has(self, row: NDArray[np.int16]) -> bool:
        """Whether this arch was told."""
        return row.tobytes() in self._keys

    def unseen(self, population: NDArray[Any]) -> Population:
        """The rows that were not told and do not repeat, in order."""
        population = population.astype(np.int16, copy=False)
        new: dict[bytes, int] = {}
        for i, row in enumerate(population):
            key = row.tobytes()
            if key not in self._keys:
                new.setdefault(key, i)
        return population[list(new.values())] if len(new) < len(population) else population

    def fresh(self, n: int, but: Population | None = None) -> Population:
        """Up to n random archs that were not told and are not in `but`; within the limits if there are any.

        Fewer only when there are no more, or when a space too large to list shows no more in many draws.
        """
        shape = (0, len(self._space.choices))
        good = np.zeros(shape, np.int16)
        bad = good
        taken = np.zeros(shape, np.int16) if but is None else but
        for turn in range(self._ROUNDS):
            draw = self._draw(max(4 * n, 64), turn)
            new = self.unseen(np.concatenate([taken, good, bad, draw]))[len(taken) + len(good) + len(bad) :]
            within = self._violation(new) <= 0
            good, bad = np.concatenate([good, new[within]]), np.concatenate([bad, new[~within]])[: 16 * n]
            if len(good) >= n or (turn == self._DRAWS and self._every is not None):
                break
        if len(bad):
            bad = bad[np.argsort(self._violation(bad), kind="stable")]
        return np.concatenate([good, bad])[:n]

    def _draw(self, n: int, turn: int) -> Population:
        """Random archs; after a few turns that were not enough, all of a small space in random order."""
        if turn == self._DRAWS and self._every is not None:
            return self._every[self._rng.permutation(len(self._every))]
        return self._space.sample(n, self._rng)
