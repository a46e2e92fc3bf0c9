"""What one training step trains: archs, each with its loss and its weight, proposed by a sampling policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from search_spaces.arch import Arch
from search_spaces.space import SearchSpace

Loss: TypeAlias = Literal["labels", "inplace", "teacher"]


@dataclass(frozen=True, slots=True)
class Member:
    """One arch of a step.

    loss: "labels" is cross-entropy; "inplace" is soft cross-entropy to the logits of the plan's first member;
    "teacher" is cross-entropy plus soft cross-entropy to the teacher that `train` was given.
    weight multiplies the loss. regularise: dropout and drop-path are active in this member's pass.
    """

    arch: Arch
    loss: Loss = "labels"
    weight: float = 1.0
    regularise: bool = True


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The members of one step, in the order in which they run. Their gradients are summed."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("a step plan needs at least one member")
        if self.members[0].loss == "inplace":
            raise ValueError("the first member of a step plan is the in-place teacher of the others")

    @property
    def archs(self) -> tuple[Arch, ...]:
        """The archs of the members."""
        return tuple(member.arch for member in self.members)


class SamplingPolicy:
    """Proposes the plan of each step.

    An implementer guarantees: `plan` draws from `rng` only, so the same generator state (and the same
    feedback so far) gives the same plan in any process; `state_dict` is JSON-able and restores what `observe`
    learned; `settings` is what the policy was made with. A policy without memory overrides `plan` only. Each
    phase of a training works on a copy of its own.
    """

    name: str = ""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The JSON-able arguments that made this policy."""
        return {}

    def plan(self, space: SearchSpace, rng: np.random.Generator) -> StepPlan:
        """The plan of the next step over the archs of `space`."""
        raise NotImplementedError

    def observe(self, plan: StepPlan, losses: Sequence[float]) -> None:
        """Feedback: the loss of each member of a step that was taken."""

    def state_dict(self) -> dict[str, Any]:
        """What must be kept for an exact resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
