"""What a search adds to its evaluations, beside pymoo's own loop on the same problem.

    python studies/benchmarks/search_overhead.py

Writes search_overhead.csv beside this file. Microseconds per evaluated arch of the full MobileNetV3 space
with two objectives that cost next to nothing, NSGA-II with a population of 100 and 10,000 evaluations.
Nothing is recorded (study_store.py times that). pymoo's loop uses the operators that it ships for whole
numbers, on the index vectors; it may evaluate one network twice, since it knows of no conditions. The two
searches take turns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from record import figure, save
from timing import interleaved

from nas.objectives import Objective
from nas.search_loop import search
from nas.searchers import nsga2
from nas.searchers.searcher import Problem
from predictors.target import Provenance
from search_spaces import SearchSpace, mobilenet_v3

EVALUATIONS = 10_000
POPULATION = 100
REPEATS = 3


def large(population: NDArray[Any]) -> NDArray[np.float64]:
    """How large the options are."""
    return population.sum(axis=1, dtype=np.float64)


def uneven(population: NDArray[Any]) -> NDArray[np.float64]:
    """How much neighbouring choices differ."""
    return np.abs(np.diff(population, axis=1)).sum(axis=1, dtype=np.float64)


def ours(space: SearchSpace) -> None:
    """A search by our loop."""
    made = Provenance("computed", "for this benchmark")
    objectives = [
        Objective("large", "", "maximize", True, made, large),
        Objective("uneven", "", "minimize", True, made, uneven),
    ]
    problem = Problem(
        space, 2, lambda population: np.zeros(len(population)), POPULATION, seed=0, limited=False
    )
    outcome = search(space, nsga2.searcher(problem), objectives, [], EVALUATIONS)
    assert len(outcome.population) == EVALUATIONS


class Bare(PymooProblem):
    """The same problem as pymoo states it."""

    def __init__(self, space: SearchSpace) -> None:
        most = [len(choice.options) - 1 for choice in space.choices]
        super().__init__(n_var=len(most), n_obj=2, xl=0, xu=most, vtype=int)

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = np.column_stack([-large(x), uneven(x)])


def theirs(space: SearchSpace) -> None:
    """A search by pymoo's loop."""
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=SBX(repair=RoundingRepair()),
        mutation=PM(repair=RoundingRepair()),
    )
    minimize(Bare(space), algorithm, ("n_eval", EVALUATIONS), seed=0)


def main() -> None:
    space = mobilenet_v3.space(resolutions=range(128, 225, 4))
    loop, bare = (
        [1e6 * taken / EVALUATIONS for taken in times]
        for times in interleaved(lambda: ours(space), lambda: theirs(space), repeats=REPEATS)
    )
    rows = [
        figure("our search, per evaluation", loop, "us", bar=100.0),
        figure("pymoo's loop, per evaluation", bare, "us"),
        figure("ours over pymoo's", [a / b for a, b in zip(loop, bare, strict=True)]),
    ]
    save(__file__, rows, ("pymoo", "numpy"))


if __name__ == "__main__":
    main()
