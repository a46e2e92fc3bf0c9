"""SortedNet's sampling: a list of nested archs, and one of them at random for each micro-batch of a step.

The list is given, or is the grid over chosen dimensions (`search_spaces.nesting.grid`). Every member has the
same chance, whether or not the list is a full product. Source: Valipour et al. 2023, arXiv:2309.00255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.arch import Arch, Option
from search_spaces.errors import InputError
from search_spaces.nesting import grid
from search_spaces.space import SearchSpace
from supernets.plan import Member, SamplingPolicy, StepPlan


@dataclass(frozen=True)
class NestedList(SamplingPolicy):
    """`n` archs per step, drawn with replacement from the list, each on its own micro-batch, with labels.

    archs: the list; where it is empty, the grid over `dimensions` (patterns; all kinds of choices if empty).
    The phase accumulates over `n` batches.
    """

    n: int = 4
    dimensions: Sequence[str] = ()
    archs: Sequence[Mapping[str, Option]] = ()
    name = "nested_list"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", tuple(self.dimensions))
        object.__setattr__(self, "archs", tuple(Arch(arch) for arch in self.archs))
        if self.n < 1:
            raise InputError(f"a nested list draws {self.n} archs per step; at least 1 is needed")
        if self.archs and self.dimensions:
            raise InputError("a nested list is given by its archs or by dimensions, not by both")

    @property
    def settings(self) -> Mapping[str, Any]:
        """n, dimensions and archs."""
        return {"n": self.n, "dimensions": list(self.dimensions), "archs": [dict(a) for a in self.archs]}

    def plan(self, space: SearchSpace, rng: np.random.Generator) -> StepPlan:
        """`n` members of the list, drawn evenly; member i is for micro-batch i."""
        listed = self.listed(space)
        drawn = rng.integers(0, len(listed), self.n)
        return StepPlan(tuple(Member(listed[i]) for i in drawn), spread=True)

    def listed(self, space: SearchSpace) -> tuple[Arch, ...]:
        """The list.

        Raises:
            SpaceError: an arch or a dimension that is none of the space's.
        """
        return tuple(map(space.arch, self.archs)) if self.archs else grid(space, tuple(self.dimensions))
