"""Nested archs: those in which choices of one kind move together, from small to large.

Two families. *Granularities* (MatFormer): all choices that match a pattern take their i-th option, everything
else its largest. *Grids* (SortedNet): a bound per dimension, the product of all. In both, a smaller member's
options are nowhere larger than a larger one's, so under slicing its weights are prefixes of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from search_spaces.arch import Arch
from search_spaces.choice import Choice
from search_spaces.errors import SpaceError, did_you_mean
from search_spaces.space import RESOLUTION, Population, SearchSpace

FFN = ("*.mlp_ratio", "*.ffn*")  # the feed-forward widths of the transformers that come with this package
_MOST = 100_000  # members of a grid


def matching(space: SearchSpace, patterns: Sequence[str]) -> list[Choice]:
    """The choices that are numbers and match one of `patterns`, in the space's order: shallow to deep.

    Raises:
        SpaceError: there is none.
    """
    found = [c for c in space.choices if c.ordinal and any(fnmatchcase(c.name, p) for p in patterns)]
    if not found:
        wanted = " or ".join(map(repr, patterns))
        hint = did_you_mean(patterns[0], dimensions(space))
        raise SpaceError(f"no choice of {space.name!r} that is a number matches {wanted}{hint}")
    return found


def levels(space: SearchSpace, patterns: Sequence[str]) -> int:
    """How many options the choices that match have, each.

    Raises:
        SpaceError: no choice matches, or some have more options than others.
    """
    found = matching(space, patterns)
    counts = {len(choice.options) for choice in found}
    if len(counts) > 1:
        few, many = (pick(found, key=lambda c: len(c.options)) for pick in (min, max))
        raise SpaceError(
            f"{few.name} has {len(few.options)} options and {many.name} {len(many.options)}: choices that "
            "move together need the same number; restrict the space or narrow the pattern"
        )
    return counts.pop()


def granularity(space: SearchSpace, level: int, patterns: Sequence[str] = FFN) -> Arch:
    """The arch whose matching choices take option number `level`, counted from 0, and all others their last.

    Raises:
        SpaceError: no choice matches, or there is no such level.
    """
    most = levels(space, patterns)
    if not 0 <= level < most:
        raise SpaceError(f"granularity {level} of {space.name!r} is none of 0 to {most - 1}")
    wanted = {c.name: c.options[level] for c in matching(space, patterns)}
    return space.arch({c.name: wanted.get(c.name, c.options[-1]) for c in space.choices})


def dimensions(space: SearchSpace) -> tuple[str, ...]:
    """A pattern for each kind of choice that is a number: "depth", "*.heads"; not the resolution.

    "block1.heads" and "block2.heads" are of one kind.
    """
    names = [c.name for c in space.choices if c.ordinal and c.name != RESOLUTION]
    return tuple(dict.fromkeys(f"*.{n.rpartition('.')[2]}" if "." in n else n for n in names))


@lru_cache(maxsize=32)
def grid(space: SearchSpace, patterns: tuple[str, ...] = ()) -> tuple[Arch, ...]:
    """Every combination of one level per pattern, all choices of a pattern alike; each arch once.

    Without patterns those of `dimensions`. Choices that match none take their last option. The first member
    is the smallest, the last the largest.

    Raises:
        SpaceError: a pattern without choices, or with choices of different numbers of options; more than
            100,000 members.
    """
    patterns = patterns or dimensions(space)
    counts = [levels(space, (pattern,)) for pattern in patterns]
    if prod(counts) > _MOST:
        raise SpaceError(
            f"the grid of {space.name!r} over {', '.join(patterns)} has {prod(counts):,} members; at most "
            f"{_MOST:,} are possible, so name fewer dimensions"
        )
    columns = [[c.name for c in matching(space, (pattern,))] for pattern in patterns]
    options = {choice.name: choice.options for choice in space.choices}
    largest = {name: values[-1] for name, values in options.items()}
    found = []
    for chosen in product(*map(range, counts)):
        bounds = {
            name: options[name][level] for names, level in zip(columns, chosen, strict=True) for name in names
        }
        found.append(space.arch(largest | bounds))
    return tuple(dict.fromkeys(found))


def largest_within(
    space: SearchSpace,
    archs: Iterable[Arch],
    budget: float,
    cost: Callable[[Population], NDArray[np.float64]] | None = None,
) -> Arch:
    """The largest of `archs` that costs at most `budget`: search-free selection, monotone in the budget.

    `cost` maps a population [n, choices] to numbers [n]; parameters by default. Of several that cost the
    same, the one with the most multiply-adds, then the first.

    Raises:
        SpaceError: none is within the budget; the message gives the least.
    """
    archs = list(archs)
    population = space.index(archs)
    counted = space.costs(population)
    costs = counted.params.astype(np.float64) if cost is None else cost(population)
    within = np.flatnonzero(costs <= budget)
    if not len(within):
        least = f"; the least is {costs.min():,.6g}" if len(costs) else ""
        raise SpaceError(f"none of {len(archs)} nested archs costs at most {budget:,.6g}{least}")
    order = np.lexsort((-within, counted.macs[within], costs[within]))
    return archs[int(within[order[-1]])]
