"""SortedNet's selection without a search: the largest nested sub-model within the limits.

Source: Valipour et al. 2023, arXiv:2309.00255. The list is the one that the supernet was trained on, or the
grid over all kinds of choices where its training knew none (`search_spaces.nesting.grid`), ordered by
multiply-adds, then parameters. Without limits every member is evaluated: whether quality rises with cost is
what the lookup rests on.
"""

from __future__ import annotations

import numpy as np

from nas.searchers.searcher import Problem, Searcher
from nas.searchers.walk import Walk
from search_spaces.nesting import grid


def searcher(problem: Problem) -> Searcher:
    """From the largest member down to the first that keeps all limits; all of them if there is no limit.

    Raises:
        SpaceError: the choices of a kind have different numbers of options, so there is no default list.
        InputError: no member is within the limits.
    """
    archs = problem.listed or grid(problem.space)
    costs = problem.space.costs(problem.space.index(archs))
    order = np.lexsort((costs.params, costs.macs))[::-1]
    return Walk(problem, [archs[i] for i in order], first_only=problem.limited)
