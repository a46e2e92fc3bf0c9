"""Mix'n'Match: a granularity per layer, non-decreasing with depth and changing as little as possible.

Source: MatFormer, Devvrit et al. 2024, arXiv:2310.07707, section 3.3. Between two neighbouring granularities
the layers are upgraded one at a time from the deepest to the shallowest, so every network between two
uniform ones mixes these two only. Better there than decreasing and zig-zag orders, and as good as
evolutionary search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.arch import Arch
from search_spaces.errors import SpaceError
from search_spaces.nesting import FFN, levels, matching
from search_spaces.space import Population, SearchSpace


def ladder(space: SearchSpace, patterns: Sequence[str] = FFN) -> list[Arch]:
    """All minimum-slope archs, from the smallest granularity to the largest: (g - 1) * layers + 1 of them.

    Each differs from the one before it in one layer, which takes its next larger option.

    Raises:
        SpaceError: no choice matches, or some have more options than others.
    """
    layers = matching(space, patterns)
    largest = {choice.name: choice.options[-1] for choice in space.choices}
    rungs = [{c.name: c.options[0] for c in layers}]
    for level in range(1, levels(space, patterns)):
        for choice in reversed(layers):
            rungs.append(rungs[-1] | {choice.name: choice.options[level]})
    return list(dict.fromkeys(space.arch(largest | rung) for rung in rungs))


def minimum_slope(
    space: SearchSpace,
    budget: float,
    cost: Callable[[Population], NDArray[np.float64]] | None = None,
    patterns: Sequence[str] = FFN,
) -> Arch:
    """The minimum-slope arch that costs at most `budget`, and would cost more with one more upgrade.

    `cost` maps a population [n, choices] to numbers [n] that rise with the granularity; default: parameters.

    Raises:
        SpaceError: no choice matches, or even the smallest granularity costs more.
    """
    rungs = ladder(space, patterns)
    population = space.index(rungs)
    costs = space.costs(population).params if cost is None else cost(population)
    within = int(np.searchsorted(np.maximum.accumulate(costs), budget, side="right"))
    if within == 0:
        raise SpaceError(
            f"the smallest granularity of {space.name!r} costs {costs[0]:,.6g}, over the budget of "
            f"{budget:,.6g}"
        )
    return rungs[within - 1]
