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
from search_spaces.errors import InputError, SpaceError
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
        """The largest arch at each of the depths that the space offers, where its depth is a choice.

        Raises:
            SpaceError: the space's networks have no exits, or not so many blocks.
        """
        if not hasattr(space.skeleton(space.largest), "exits"):
            raise SpaceError(f"the networks of {space.name!r} have no exits; use --space gpt")
        options = {choice.name: choice.options for choice in space.choices}.get("depth", ())
        most = space.largest.get("depth", self.depths[-1])
        if isinstance(most, int) and self.depths[-1] > most:
            raise SpaceError(
                f"exits = {list(self.depths)}, but the largest of {space.name!r} has {most} blocks"
            )
        largest = {choice.name: choice.options[-1] for choice in space.choices}
        return tuple(space.arch(largest | {"depth": d}) for d in self.depths if d in options)
