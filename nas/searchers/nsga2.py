"""NSGA-II with operators made for choices. The algorithm is pymoo's; this is the one file that imports it.

Source: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II". Operators: uniform
crossover and per-choice random reset (polynomial mutation with rounding leaves choices of three options as
they are). Departures: the first generation holds the largest and the smallest arch; an arch proposed twice is
replaced by a random one, so that no evaluation is spent on what is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population as Individuals
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.termination import NoTermination

from nas.searchers.searcher import Problem, Searcher, Seen, extremes
from search_spaces import Population, SearchSpace

_CROSSOVER_PROBABILITY = 0.9
_FAILED = 1e30  # every objective of a failed evaluation, where no limit can mark it
_MATINGS = 20  # tries to fill a generation with archs that were not seen


class Nsga2:
    """NSGA-II by ask and tell."""

    def __init__(self, problem: Problem) -> None:
        self._size, self._limited = problem.population, problem.limited
        self._seen = Seen(problem.space, problem.violation, np.random.default_rng([problem.seed, 1]))
        first = extremes(problem)
        rest = self._seen.fresh(max(problem.population - len(first), 0), but=first)
        self._asked: Any = None
        self._algorithm: Any = NSGA2(
            pop_size=problem.population,
            sampling=np.concatenate([first, rest])[: problem.population],
            crossover=_Uniform(problem.space),
            mutation=_Reset(problem.space),
            eliminate_duplicates=_Known(self._seen),
        )
        self._algorithm.mating.n_max_iterations = _MATINGS
        self._algorithm.setup(
            _Frame(len(problem.space.choices), problem.objectives, problem.limited),
            termination=NoTermination(),
            seed=problem.seed,
            verbose=False,
        )

    def ask(self) -> Population:
        """The next generation; random archs where mating brings nothing new."""
        proposed = self._algorithm.ask()
        new = np.zeros((0, self._algorithm.problem.n_var), np.int16)
        if proposed is not None and len(proposed):
            new = self._seen.unseen(proposed.get("X"))
        if len(new) < self._size:
            new = np.concatenate([new, self._seen.fresh(self._size - len(new), but=new)])
        self._asked = Individuals.new("X", new)
        return new

    def tell(
        self, population: Population, values: NDArray[np.float64], violation: NDArray[np.float64]
    ) -> None:
        """Selects the survivors."""
        self._seen.add(population)
        if self._limited:
            self._asked.set("F", values, "G", violation[:, None])
        else:
            self._asked.set("F", np.where(violation[:, None] > 0, _FAILED, values))
        for individual in self._asked:
            individual.evaluated.update({"F", "G", "H"})
        self._algorithm.evaluator.n_eval += len(self._asked)
        self._algorithm.tell(infills=self._asked)


def searcher(problem: Problem) -> Searcher:
    """NSGA-II for `problem`."""
    return Nsga2(problem)


class _Frame(PymooProblem):
    """What pymoo needs to know: numbers of variables, objectives and limits."""

    def __init__(self, choices: int, objectives: int, limited: bool) -> None:
        super().__init__(
            n_var=choices, n_obj=objectives, n_ieq_constr=int(limited), xl=-1, xu=np.iinfo(np.int16).max
        )


class _Uniform(Crossover):
    def __init__(self, space: SearchSpace) -> None:
        super().__init__(2, 2, prob=_CROSSOVER_PROBABILITY)
        self._space = space

    def _do(self, problem: Any, X: Any, *args: Any, random_state: Any = None, **kwargs: Any) -> Any:
        a, b = X.astype(np.int16)
        return np.stack(
            [self._space.crossover(a, b, random_state), self._space.crossover(b, a, random_state)]
        )


class _Reset(Mutation):
    def __init__(self, space: SearchSpace) -> None:
        super().__init__(prob=1.0)
        self._space = space

    def _do(self, problem: Any, X: Any, *args: Any, random_state: Any = None, **kwargs: Any) -> Any:
        return self._space.mutate(X.astype(np.int16), random_state)


class _Known(DuplicateElimination):
    """Drops what was told before, parents included, and what repeats."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def _do(self, pop: Any, other: Any, is_duplicate: Any) -> Any:
        if other is not None and all(self._seen.has(row) for row in other[:1].get("X")):
            return (
                is_duplicate  # the parents: told, so dropped when the offspring were compared with themselves
            )
        taken = set() if other is None else {row.tobytes() for row in other.get("X")}
        for i, row in enumerate(pop.get("X")):
            key = row.tobytes()
            is_duplicate[i] = key in taken or self._seen.has(row)
            taken.add(key)
        return is_duplicate
