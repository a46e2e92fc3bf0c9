"""`--pick`: which network of a search to hand over, in words short enough for a command line.

    knee                             the knee of the front
    latency_ms<2                     the most accurate one below 2 ms
    accuracy>0.97, params<2M         both must hold

The grammar: `knee`, or comparisons `NAME (< | <= | > | >=) NUMBER` joined by commas.
NUMBER may end in k, M or G.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.front import Direction, knee, minimised
from search_spaces.errors import InputError, did_you_mean

Comparison = Literal["<", "<=", ">", ">="]

SUFFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
EXAMPLE = "write knee, or comparisons such as 'latency_ms<2' or 'accuracy>0.97, params<2M'"

_AMOUNT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)")
_LIMIT = re.compile(r"([A-Za-z_][\w.\-]*)\s*(<=|>=|<|>)\s*(\S.*)")


@dataclass(frozen=True, slots=True)
class Limit:
    """One comparison: the column `name` must be `comparison` `bound`."""

    name: str
    comparison: Comparison
    bound: float  # in the unit of the column

    def __str__(self) -> str:
        return f"{self.name} {self.comparison} {self.bound:g}"

    def holds(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """For which of the values [n] the comparison is true, as a mask [n]; never for NaN."""
        compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
        return np.asarray(compare[self.comparison](values, self.bound), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Pick:
    """What `parse_pick` read: the limits that must all hold; the knee of the front when there are none."""

    limits: tuple[Limit, ...] = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits)) or "knee"


def parse_amount(text: str) -> float:
    """The number that `text` writes: 2, 0.97, 1e-3, 2.5k, 2M, 1G.

    Raises:
        InputError: anything else, `nan` and `inf` included.
    """
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise InputError(f"{text.strip()!r} is not a number; write for example 2, 0.97, 1e-3, 2.5k, 2M or 1G")
    digits, suffix = found.groups()
    if suffix not in SUFFIXES:
        raise InputError(f"{suffix!r} in {text.strip()!r} is not a suffix of a number (known: k, M, G)")
    value = float(digits) * SUFFIXES[suffix]
    if not np.isfinite(value):
        raise InputError(f"{text.strip()!r} is too large a number")
    return value


def parse_pick(text: str) -> Pick:
    """The pick that `text` states, by the grammar at the head of this file.

    Raises:
        InputError: `text` does not follow it.
    """
    if text.strip().lower() == "knee":
        return Pick()
    limits = []
    for part in text.split(","):
        found = _LIMIT.fullmatch(part.strip())
        if found is None:
            raise InputError(f"cannot read {part.strip()!r} in pick {text.strip()!r}; {EXAMPLE}")
        name, comparison, amount = found.groups()
        limits.append(Limit(name, cast(Comparison, comparison), parse_amount(amount)))
    return Pick(tuple(limits))


def choose(pick: Pick, columns: Mapping[str, ArrayLike], objectives: Mapping[str, Direction]) -> int:
    """The row that `pick` means in a table of `columns`, each [n], whose `objectives` are ordered.

    With limits: the best by the first objective among the rows that meet them all; ties go by the other
    objectives in order, then to the lower row. Limits may name any column, objective or not. Without limits:
    the knee (`nas.front.knee`).

    Raises:
        InputError: an unknown column, an empty table, or no row that meets the limits; the line then says the
            closest value seen.
    """
    table = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    for limit in pick.limits:
        if limit.name not in table:
            raise InputError(f"unknown name {limit.name!r} in pick '{pick}'{did_you_mean(limit.name, table)}")
    matrix = minimised(table, objectives)
    if not len(matrix):
        raise InputError(f"nothing to pick from: no candidate was evaluated (pick '{pick}')")
    if not pick.limits:
        return knee(matrix)
    met = np.stack([limit.holds(table[limit.name]) for limit in pick.limits])
    rows = np.flatnonzero(met.all(axis=0))
    if not rows.size:
        raise InputError(
            f"no candidate has {' and '.join(map(str, pick.limits))}; {_closest(pick, table, met)}"
        )
    order = np.lexsort((rows, *matrix[rows].T[::-1]))
    return int(rows[order[0]])


def _closest(pick: Pick, table: Mapping[str, NDArray[np.float64]], met: NDArray[np.bool_]) -> str:
    """What came nearest: each limit's best value among the rows that meet the others, or else of all."""
    others = [np.delete(met, i, axis=0).all(axis=0) for i in range(len(pick.limits))]
    if len(pick.limits) == 1 or not any(rows.any() for rows in others):
        return "; ".join(_best(limit, table[limit.name]) for limit in pick.limits)
    return "; ".join(
        _best(limit, table[limit.name][rows]) + f" where {_joined(pick.limits, i)}"
        for i, (limit, rows) in enumerate(zip(pick.limits, others))
        if rows.any()
    )


def _best(limit: Limit, values: NDArray[np.float64]) -> str:
    seen = values[~np.isnan(values)]
    if not seen.size:
        return f"{limit.name} is known of no candidate"
    if limit.comparison.startswith("<"):
        return f"the lowest {limit.name} seen is {seen.min():g}"
    return f"the highest {limit.name} seen is {seen.max():g}"


def _joined(limits: Sequence[Limit], left_out: int) -> str:
    return " and ".join(str(limit) for i, limit in enumerate(limits) if i != left_out)
