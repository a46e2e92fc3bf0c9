"""Costs of whole populations from tables that a space derives by itself.

A network's cost is a sum over parts (a module, a fused kernel), and each part depends on few choices. Which
ones is found by changing one choice at a time; then every combination that a part can see is measured once,
many parts at a time, and a population's cost is a handful of look-ups. The result is checked against direct
measurement on random archs; where it differs, the arch that showed it becomes another starting point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import SpaceError
from search_spaces.trace import Layer

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace

Measure: TypeAlias = Callable[[Sequence[Layer]], Mapping[str, float | Sequence[float]]]
Parts: TypeAlias = dict[str, NDArray[np.float64]]

_ROUNDS = 12
_CHECKS = 48
_MANY_OPTIONS = 4  # a choice with more options is probed at its ends and its middle
_MOST_COMBINATIONS = 50_000
_OPEN = -2


class _Group:
    """Parts that depend on the same choices, and their summed values for every combination of those."""

    def __init__(self, space: SearchSpace, columns: Sequence[int], width: int) -> None:
        self.columns = list(columns)
        sizes = [len(space.choices[j].options) + 1 for j in self.columns]
        self.strides = np.array([prod(sizes[i + 1 :]) for i in range(len(sizes))], dtype=np.int64)
        self.values = np.full((prod(sizes), width), np.nan)

    def codes(self, population: NDArray[Any]) -> NDArray[np.int64]:
        """The table row of each arch."""
        if not self.columns:
            return np.zeros(len(population), dtype=np.int64)
        codes = np.zeros(len(population), dtype=np.int64)
        for column, stride in zip(self.columns, self.strides, strict=True):
            codes += (population[:, column].astype(np.int64) + 1) * stride
        return codes


class AdditiveTable:
    """`table(population)` -> float64 [n, columns]: the sum of a measure over the parts of each arch.

    Equal to measuring each arch's layers and summing, as long as the measure is a function of the layers.
    Derived at construction (seconds for a large space); a look-up takes microseconds per thousand archs.
    Spaces whose parts depend on very many choices at once are measured arch by arch instead.

    Raises:
        SpaceError: the parts cannot be told apart by changing choices (the measure is not deterministic).
    """

    def __init__(self, space: SearchSpace, measure: Measure, columns: int = 1) -> None:
        self._space = space
        self._measure = measure
        self._width = columns
        self._groups: list[_Group] = []
        self.tabulated = True
        bases = [space.index([space.largest])[0]]
        depends: dict[str, set[int]] = {}
        rng = np.random.default_rng(0)
        probed: set[str] = set()
        forced = np.zeros(len(space.choices), dtype=bool)
        for _ in range(_ROUNDS):
            probed.update(self._probe(bases[-1], depends))
            forced |= bases[-1] >= 0
            measured = self._fill(depends, rng)
            if measured is None:
                self.tabulated = False
                return
            checks = np.concatenate([space.index([space.smallest]), space.sample(_CHECKS, rng)])
            measured += [(row, self._parts(row)) for row in checks]
            rows = np.array([row for row, _ in measured])
            sums = [self._sum(parts) for _, parts in measured]
            wrong = ~np.isclose(self(rows), sums, rtol=1e-9, atol=1e-12).all(axis=1)
            news = ((rows >= 0) & ~forced).sum(axis=1) + [len(parts.keys() - probed) for _, parts in measured]
            if not wrong.any() and not news.any():
                return
            bases.append(rows[int(wrong.argmax() if wrong.any() else news.argmax())])
        if wrong.any():
            raise SpaceError(f"the costs of {space.name!r} could not be tabulated: its parts do not repeat")

    def __call__(self, population: NDArray[Any]) -> NDArray[np.float64]:
        """Sums for a population [n, choices] -> float64 [n, columns]."""
        if not self.tabulated:
            return np.array([self.direct(row) for row in population]).reshape(len(population), self._width)
        total = np.zeros((len(population), self._width))
        for group in self._groups:
            total += group.values[group.codes(population)]
        return total

    def direct(self, row: NDArray[Any]) -> NDArray[np.float64]:
        """The sum for one arch (a row of indices) by measuring its layers. float64 [columns]."""
        return self._sum(self._parts(row))

    def _sum(self, parts: Parts) -> NDArray[np.float64]:
        return np.sum([np.zeros(self._width), *parts.values()], axis=0)

    def _parts(self, row: NDArray[Any]) -> Parts:
        (arch,) = self._space.archs(row[None])
        measured = self._measure(self._space.layers(arch))
        return {name: np.atleast_1d(np.asarray(value, dtype=np.float64)) for name, value in measured.items()}

    def _probe(self, base: NDArray[Any], depends: dict[str, set[int]]) -> Iterable[str]:
        """Adds to `depends` every choice that changes a part when it alone moves away from `base`.

        Returns the parts of `base`. Others, which a single change brings, may depend on more than that one.
        """
        before = self._parts(base)
        for part in before:
            depends.setdefault(part, set())
        for j, choice in enumerate(self._space.choices):
            if base[j] < 0:
                continue
            options: Sequence[int] = range(len(choice.options))
            if len(options) > _MANY_OPTIONS:
                options = (0, len(options) // 2, len(options) - 1)
            for option in options:
                if option == base[j]:
                    continue
                row = base.copy()
                row[j] = option
                after = self._parts(self._space.canonical(row[None])[0])
                for part in before.keys() | after.keys():
                    old, new = before.get(part), after.get(part)
                    if old is None or new is None or not np.array_equal(old, new):
                        depends.setdefault(part, set()).add(j)
        return before

    def _fill(
        self, depends: Mapping[str, set[int]], rng: np.random.Generator
    ) -> list[tuple[NDArray[Any], Parts]] | None:
        """Builds the groups and measures all that they can see. None when that would be too much.

        What a group does not see is drawn, so that the archs measured, which are returned with their parts,
        also show dependences that are still unknown.
        """
        wanted = sorted({frozenset(columns) for columns in depends.values()}, key=len, reverse=True)
        homes: list[frozenset[int]] = []
        for columns in wanted:
            if not any(columns <= home for home in homes):
                homes.append(columns)
        self._groups = []
        open_rows: list[NDArray[np.int16]] = []
        for home in homes:
            ways = prod(len(self._space.choices[j].options) + 1 for j in self._with_parents(home))
            if ways > _MOST_COMBINATIONS:
                return None
            self._groups.append(_Group(self._space, sorted(home), self._width))
            open_rows.append(self._combinations(home))
        home_of = {
            part: next(i for i, home in enumerate(homes) if columns <= home)
            for part, columns in depends.items()
        }
        measured = []
        while any(len(rows) for rows in open_rows):
            row = self._space.canonical(self._cover(open_rows, rng)[None])
            totals = np.zeros((len(self._groups), self._width))
            parts = self._parts(row[0])
            measured.append((row[0], parts))
            for part, value in parts.items():
                if part in home_of:  # else it was never probed, and the check will show an arch that has it
                    totals[home_of[part]] += value
            for i, group in enumerate(self._groups):
                code = group.codes(row)[0]
                group.values[code] = totals[i]
                if len(open_rows[i]):
                    open_rows[i] = open_rows[i][group.codes(open_rows[i]) != code]
        return measured

    def _cover(self, open_rows: Sequence[NDArray[np.int16]], rng: np.random.Generator) -> NDArray[np.int16]:
        """A row that holds a combination still to be measured of as many groups as go together."""
        row = np.full(len(self._space.choices), _OPEN, dtype=np.int16)
        for rows in sorted(open_rows, key=len, reverse=True):
            if len(rows):
                fits = ((rows == row) | (rows == _OPEN) | (row == _OPEN)).all(axis=1)
                if fits.any():
                    chosen = rows[int(fits.argmax())]
                    row = np.where(chosen == _OPEN, row, chosen)
        return np.where(row == _OPEN, rng.integers(0, [len(c.options) for c in self._space.choices]), row)

    def _with_parents(self, columns: frozenset[int]) -> list[int]:
        """The columns and all that their conditions rest on, in order."""
        at = {choice.name: j for j, choice in enumerate(self._space.choices)}
        found: set[int] = set()
        todo = list(columns)
        while todo:
            j = todo.pop()
            if j not in found:
                found.add(j)
                todo += [at[parent] for parent in self._space.choices[j].when]
        return sorted(found)

    def _combinations(self, columns: frozenset[int]) -> NDArray[np.int16]:
        """Every canonical combination of these choices as a row, with `_OPEN` for all others."""
        wanted = self._with_parents(columns)
        rows = list(self._extend(wanted, 0, {}))
        out = np.full((len(rows), len(self._space.choices)), _OPEN, dtype=np.int16)
        out[:, wanted] = rows
        _, first = np.unique(out[:, sorted(columns)], axis=0, return_index=True)
        return out[np.sort(first)]

    def _extend(self, wanted: Sequence[int], at: int, taken: dict[str, Any]) -> Iterator[list[int]]:
        if at == len(wanted):
            yield []
            return
        choice = self._space.choices[wanted[at]]
        if not all(parent in taken and taken[parent] in allowed for parent, allowed in choice.when.items()):
            for rest in self._extend(wanted, at + 1, taken):
                yield [-1, *rest]
            return
        for i, option in enumerate(choice.options):
            for rest in self._extend(wanted, at + 1, {**taken, choice.name: option}):
                yield [i, *rest]
