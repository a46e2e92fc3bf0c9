"""Uniform sampling: each step trains n archs, every choice drawn uniformly, with labels.

n = 1 is single-path training (SPOS, Guo et al. 2020, arXiv:1904.00420; AutoFormer, Chen et al. 2021,
arXiv:2107.00651); n = 2 and 4 are the later stages of Once-for-All (Cai et al. 2020, arXiv:1908.09791).
Per-choice sampling is bell-shaped in size: the extremes are rarely trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from supernets.plan import Member, SamplingPolicy, StepPlan


@dataclass(frozen=True)
class Uniform(SamplingPolicy):
    """n archs per step, each trained with labels (and the external teacher, if `teacher`)."""

    n: int = 1
    teacher: bool = False
    name = "uniform"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"uniform sampling trains {self.n} archs per step; at least 1 is needed")

    @property
    def settings(self) -> Mapping[str, Any]:
        """n and teacher."""
        return asdict(self)

    def plan(self, space: SearchSpace, rng: np.random.Generator) -> StepPlan:
        """n archs of `space`, drawn uniformly per choice."""
        archs = space.archs(space.sample(self.n, rng))
        return StepPlan(tuple(Member(arch, "teacher" if self.teacher else "labels") for arch in archs))
