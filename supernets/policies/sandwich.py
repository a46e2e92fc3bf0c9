"""The sandwich rule: each step trains the largest arch, the smallest, and random ones between.

The largest learns from the labels and is the in-place teacher of the others, which see no label. Dropout and
drop-path are active in the largest only. Sources: Yu and Huang 2019, arXiv:1903.05134; BigNAS, Yu et al.
2020, arXiv:2003.11142.

Departure from BigNAS: weight decay acts once per step on the summed gradient, not on the largest alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from supernets.plan import Loss, Member, SamplingPolicy, StepPlan


@dataclass(frozen=True)
class Sandwich(SamplingPolicy):
    """n archs per step: the largest, the smallest and n - 2 random; `distill` or all with labels."""

    n: int = 4
    distill: bool = True
    name = "sandwich"

    def __post_init__(self) -> None:
        if self.n < 2:
            raise InputError(
                f"a sandwich has {self.n} archs per step; at least 2 are needed (largest, smallest)"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """n and distill."""
        return asdict(self)

    def plan(self, space: SearchSpace, rng: np.random.Generator) -> StepPlan:
        """The largest of `space`, its smallest, then n - 2 drawn uniformly per choice."""
        loss: Loss = "inplace" if self.distill else "labels"
        others = [space.smallest, *space.archs(space.sample(self.n - 2, rng))]
        return StepPlan(
            (Member(space.largest), *(Member(arch, loss, regularise=False) for arch in others)),
        )
