"""MatFormer's sampling: one granularity per step, the same in all layers, with labels only.

Granularity i gives every choice that matches a pattern (by default the feed-forward widths) its i-th option;
all other choices stay at their largest. Source: Devvrit et al. 2024, arXiv:2310.07707; the joint variant, in
which every step trains all granularities and sums their losses, is that of the public codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from search_spaces.arch import Arch
from search_spaces.errors import InputError
from search_spaces.nesting import FFN, granularity, levels
from search_spaces.space import SearchSpace
from supernets.plan import Member, SamplingPolicy, StepPlan


@dataclass(frozen=True)
class Granularities(SamplingPolicy):
    """One random granularity per step, or all of them with `joint`.

    probabilities: of the granularities from the smallest to the largest, in any scale; uniform if empty.
    """

    patterns: Sequence[str] = FFN
    probabilities: Sequence[float] = ()
    joint: bool = False
    name = "granularities"

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", tuple(self.patterns))
        object.__setattr__(self, "probabilities", tuple(map(float, self.probabilities)))
        wrong = any(not math.isfinite(p) or p < 0 for p in self.probabilities)
        if wrong or (self.probabilities and not sum(self.probabilities)):
            raise InputError(
                f"probabilities = {list(self.probabilities)}: each is at least 0, and not all are 0"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """patterns, probabilities and joint."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def plan(self, space: SearchSpace, rng: np.random.Generator) -> StepPlan:
        """The drawn granularity of `space`; with `joint` all, the largest first."""
        count = self._count(space)
        if self.joint:
            drawn = list(reversed(range(count)))
        else:
            p = np.array(self.probabilities) / sum(self.probabilities) if self.probabilities else None
            drawn = [int(rng.choice(count, p=p))]
        return StepPlan(tuple(Member(granularity(space, level, self.patterns)) for level in drawn))

    def listed(self, space: SearchSpace) -> tuple[Arch, ...]:
        """The granularities, smallest first."""
        return tuple(granularity(space, level, self.patterns) for level in range(self._count(space)))

    def _count(self, space: SearchSpace) -> int:
        count = levels(space, self.patterns)
        if self.probabilities and len(self.probabilities) != count:
            raise InputError(
                f"{len(self.probabilities)} probabilities are given for the {count} granularities of "
                f"{space.name!r}"
            )
        return count
