"""Mix'n'Match: the minimum-slope networks between MatFormer's granularities, all of them and nothing else.

Source: Devvrit et al. 2024, arXiv:2310.07707; what they are says `search_spaces.minimum_slope`. There are
(granularities - 1) * layers + 1: few enough to evaluate each, so this is a table rather than a search.
"""

from __future__ import annotations

from nas.searchers.searcher import Problem, Searcher
from nas.searchers.walk import Walk
from search_spaces.minimum_slope import ladder


def searcher(problem: Problem) -> Searcher:
    """The ladder of `problem`'s space from the largest network down, as far as it is within the limits.

    Raises:
        SpaceError: the space has no nested feed-forward layers.
        InputError: no rung is within the limits.
    """
    return Walk(problem, reversed(ladder(problem.space)))
