"""The loop of a search: ask, check limits, evaluate what is new, record, tell.

An arch is evaluated once. Limits on cheap objectives are checked first: an arch beyond them is told to the
searcher as such and never evaluated. Values that are known already (of an interrupted search) are told in
place of an evaluation, so that the search repeats itself up to where it stopped and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.objectives import Limit, Objective
from nas.searchers.searcher import Searcher, Violation
from search_spaces import InputError, Population, SearchSpace

_DRAWS = 10_000
_IDLE_GENERATIONS = 200  # generations without anything to evaluate before the search ends
_HOPELESS = 1e9  # the violation of an arch whose evaluation failed


class Record(Protocol):
    """Takes in what was evaluated: archs [n, choices], values [n, objectives], violations [n, limits]."""

    def __call__(
        self,
        population: Population,
        values: NDArray[np.float64],
        violations: NDArray[np.float64],
        seconds: float,
    ) -> None: ...


Known: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]  # values, violations of one arch


class Infeasible(InputError):
    """No arch within the limits was found."""


@dataclass
class Outcome:
    """All archs that a search evaluated, in order.

    population [n, choices], values [n, objectives] in their units, violations [n, limits].
    """

    population: Population
    values: NDArray[np.float64]
    violations: NDArray[np.float64]
    exhausted: bool = False
    failed: int = 0

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which archs keep all limits, [n]."""
        return np.asarray((self.violations <= 0).all(axis=1))


def cheap_violation(limits: Sequence[Limit]) -> Violation:
    """population -> [n]: the summed violation of the limits that can be checked without an evaluation."""
    cheap = [limit for limit in limits if limit.objective.cheap]

    def violation(population: Population) -> NDArray[np.float64]:
        total = np.zeros(len(population))
        for limit in cheap:
            total += np.maximum(limit.violation(limit.objective.evaluate(population)), 0.0)
        return total

    return violation


def check_feasible(space: SearchSpace, limits: Sequence[Limit], seed: int) -> None:
    """Returns when some arch is within the limits that are cheap to check.

    Raises:
        Infeasible: none of 10,000 draws and the two extremes is; the message gives the best value seen.
    """
    cheap = [limit for limit in limits if limit.objective.cheap]
    if not cheap:
        return
    extremes = space.index([space.largest, space.smallest])
    draws = np.concatenate([extremes, space.sample(_DRAWS, np.random.default_rng([seed, 3]))])
    values = [limit.objective.evaluate(draws) for limit in cheap]
    within = np.logical_and.reduce([limit.violation(v) <= 0 for limit, v in zip(cheap, values, strict=True)])
    if within.any():
        return
    seen = ", ".join(
        f"{limit.name} {v.min():,.6g}{f' {limit.objective.unit}' if limit.objective.unit else ''}"
        for limit, v in zip(cheap, values, strict=True)
    )
    wanted = " and ".join(map(str, cheap))
    raise Infeasible(f"no arch of {space.name!r} with {wanted} in {_DRAWS:,} draws; the least seen: {seen}")


def search(
    space: SearchSpace,
    searcher: Searcher,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    evaluations: int,
    *,
    known: Mapping[bytes, Known] | None = None,
    record: Record | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Outcome:
    """Evaluates up to `evaluations` different archs that `searcher` asks for.

    Args:
        limits: on objectives, or on other cheap numbers.
        known: values [objectives] and violations [limits] by `row.tobytes()` of archs that were evaluated
            before; they are told, and count as evaluated here, but are not evaluated or recorded again.
        record: called with each batch of new evaluations before the searcher is told.
    """
    known = known or {}
    done: list[Population] = []
    values_done: list[NDArray[np.float64]] = []
    violations_done: list[NDArray[np.float64]] = []
    charged = failed = idle = 0
    exhausted = False
    cheap = cheap_violation(limits)
    while charged < evaluations:
        population = searcher.ask()
        if not len(population) or idle >= _IDLE_GENERATIONS:
            exhausted = True
            break
        beyond = cheap(population)
        values = np.full((len(population), len(objectives)), np.inf)
        violations = np.zeros((len(population), len(limits)))
        total = beyond.copy()
        chosen = np.flatnonzero(beyond <= 0)[: evaluations - charged]
        idle = 0 if len(chosen) else idle + 1
        keys = [population[i].tobytes() for i in chosen]
        new = [i for i, key in zip(chosen, keys, strict=True) if key not in known]
        for i, key in zip(chosen, keys, strict=True):
            if key in known:
                values[i], violations[i] = known[key]
        if new:
            start = clock()
            fresh = population[new]
            for column, objective in enumerate(objectives):
                values[new, column] = objective.evaluate(fresh)
            for column, limit in enumerate(limits):
                violations[new, column] = _violation(limit, objectives, fresh, values[new])
        broken = chosen[~np.isfinite(values[chosen]).all(axis=1)]
        if new and record is not None:
            good = np.setdiff1d(new, broken)
            record(population[good], values[good], violations[good], clock() - start)
        total[chosen] = np.maximum(violations[chosen], 0.0).sum(axis=1)
        total[broken] = _HOPELESS
        failed += len(broken)
        charged += len(chosen)
        kept = np.setdiff1d(chosen, broken)
        done.append(population[kept])
        values_done.append(values[kept])
        violations_done.append(violations[kept])
        if charged >= evaluations and len(chosen) < int((beyond <= 0).sum()):
            break  # the last generation was cut: there is nothing true to tell of the rest
        told = np.column_stack([o.minimised(values[:, j]) for j, o in enumerate(objectives)])
        told[~np.isfinite(values).all(axis=1)] = 0.0  # beyond the limits, so its objectives do not matter
        searcher.tell(population, told, total)
    none = np.zeros((0, len(space.choices)), np.int16)
    return Outcome(
        np.concatenate([none, *done]),
        np.concatenate([np.zeros((0, len(objectives))), *values_done]),
        np.concatenate([np.zeros((0, len(limits))), *violations_done]),
        exhausted,
        failed,
    )


def _violation(
    limit: Limit, objectives: Sequence[Objective], population: Population, values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The limit's violation from the values at hand where it is on one of the objectives."""
    for column, objective in enumerate(objectives):
        if objective.name == limit.name:
            return limit.violation(values[:, column])
    return limit.violation(limit.objective.evaluate(population))
