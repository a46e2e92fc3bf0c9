"""What one training step trains: archs, each with its loss and its weight, proposed by a sampling policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from search_spaces.arch import Arch
from search_spaces.space import SearchSpace

Loss: TypeAlias = Literal["labels", "inplace", "teacher", "distill"]


@dataclass(frozen=True, slots=True)
class Member:
    """One arch of a step.

    loss: "labels" is cross-entropy; "inplace" is the soft loss to the logits of the plan's first member;
    "teacher" is cross-entropy plus `Phase.kd_ratio` times the soft loss to the phase's teacher; "distill" is
    the soft loss to that teacher alone. The soft loss is the phase's divergence.
    weight multiplies the loss. regularise: dropout and drop-path are active in this member's pass.
    exits: where given, the loss is the mean over the logits that `module.exits(x, exits)` gives, one per
    number of blocks, in one pass.
    """

    arch: Arch
    loss: Loss = "labels"
    weight: float = 1.0
    regularise: bool = True
    exits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The members of one step, in the order in which they run.

    Every member runs on every batch of the step, and their gradients are summed. With `spread` member i runs
    on batch i only, of the as many batches that the phase accumulates. Either way a batch weighs 1 / batches.
    """

    members: tuple[Member, ...]
    spread: bool = False

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("a step plan needs at least one member")
        if self.members[0].loss == "inplace":
            raise ValueError("the first member of a step plan is the in-place teacher of the others")
        if self.spread and any(member.loss == "inplace" for member in self.members):
            raise ValueError("members on batches of their own have no in-place teacher")

    @property
    def needs_teacher(self) -> bool:
        """Whether a member learns from the phase's teacher."""
        return any(member.loss in ("teacher", "distill") for member in self.members)

    @property
    def archs(self) -> tuple[Arch, ...]:
        """The archs of the members."""
        return tuple(member.arch for member in self.members)

    def on(self, batch: int) -> StepPlan:
        """What runs on batch number `batch` of the step: with `spread` one member, else all."""
        return StepPlan(self.members[batch : batch + 1]) if self.spread else self

    def over(self, batches: int) -> StepPlan:
        """The plan of a step that has only so many batches left: with `spread` its first members."""
        return replace(self, members=self.members[:batches]) if self.spread else self


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

    def listed(self, space: SearchSpace) -> tuple[Arch, ...]:
        """All archs that `plan` can draw, smallest first, where they are a list; empty where they are not."""
        return ()

    def observe(self, plan: StepPlan, losses: Sequence[float]) -> None:
        """Feedback: the loss of each member of a step that was taken."""

    def state_dict(self) -> dict[str, Any]:
        """What must be kept for an exact resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
