"""Sorted fine-tuning's plan: every step trains all exits of the largest arch in one pass.

An exit is the network cut after a block: its features go through the final norm and the head that all exits
share, so exits add no parameters. The loss is the mean of their cross-entropies. Source: SoFT, Valipour et
al. 2024, arXiv:2309.08968.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.arch import Arch
from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from supernets.plan import Member, SamplingPolicy, StepPlan


@dataclass(frozen=True)
class Exits(SamplingPolicy):
    """The largest arch with a loss after each of `depths` blocks; its network has `exits(x, depths)`."""

    depths: Sequence[int]
    name = "exits"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        if not self.depths or any(type(d) is not int or d < 1 for d in self.depths):
            raise InputError(f"exits = {list(self.depths)}: give the numbers of blocks, at least one of them")
        if list(self.depths) != sorted(set(self.depths)):
            raise InputError(f"exits = {list(self.depths)}: each once, from shallow to deep")

    @property
    def settings(self) -> Mapping[str, Any]:
        """depths."""
        return {"depths": list(self.depths)}

    def plan(self, space: SearchSpace, rng: np.random.Generator) -> StepPlan:
        """The same plan at every step; nothing is drawn."""
        return StepPlan((Member(space.largest, exits=tuple(self.depths)),))

    def listed(self, space: SearchSpace) -> tuple[Arch, ...]:
        """The largest arch at each depth that the space offers.

        Raises:
            SpaceError: the space has no such depth.
        """
        largest = {choice.name: choice.options[-1] for choice in space.choices}
        return tuple(space.arch(largest | {"depth": depth}) for depth in self.depths)
