"""Uniform sampling: each step trains n archs, every choice drawn uniformly.

n = 1 is single-path training (SPOS, Guo et al. 2020, arXiv:1904.00420; AutoFormer, Chen et al. 2021,
arXiv:2107.00651); n = 2 and 4 are the later stages of Once-for-All (Cai et al. 2020, arXiv:1908.09791).
Per-choice sampling is bell-shaped in size: the extremes are rarely trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from search_spaces.errors import InputError, did_you_mean
from search_spaces.space import RESOLUTION, SearchSpace
from supernets.plan import Loss, Member, SamplingPolicy, StepPlan


@dataclass(frozen=True)
class Uniform(SamplingPolicy):
    """n archs per step, each trained with `loss`; `one_resolution`: all of a step at the first one's."""

    n: int = 1
    loss: Loss = "labels"
    one_resolution: bool = False
    name = "uniform"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"uniform sampling trains {self.n} archs per step; at least 1 is needed")
        if self.loss not in (known := ("labels", "teacher", "distill")):
            raise InputError(
                f"unknown loss {self.loss!r} of uniform sampling{did_you_mean(self.loss, known)}"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """n, loss and one_resolution."""
        return asdict(self)

    def plan(self, space: SearchSpace, rng: np.random.Generator) -> StepPlan:
        """n archs of `space`, drawn uniformly per choice."""
        population = space.sample(self.n, rng)
        columns = [choice.name for choice in space.choices]
        if self.one_resolution and RESOLUTION in columns:
            population[:, columns.index(RESOLUTION)] = population[0, columns.index(RESOLUTION)]
        return StepPlan(tuple(Member(arch, self.loss) for arch in space.archs(population)))
