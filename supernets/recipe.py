"""A training recipe: an ordered list of phases, as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from search_spaces.arch import Arch, Option
from search_spaces.errors import InputError, did_you_mean
from search_spaces.space import SearchSpace
from supernets.losses import Divergence
from supernets.plan import SamplingPolicy
from supernets.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of training: what is open, who is drawn, and how the weights move.

    At its entry a phase makes a new optimiser, a new schedule and, with `ema_decay`, a new average.
    """

    name: str
    epochs: int
    policy: SamplingPolicy
    # As in `SearchSpace.restrict`: options, or how many of the largest.
    open: Mapping[str, tuple[Option, ...] | int] = field(default_factory=dict)
    optimizer: str = "sgd"  # a name that timm knows; "sgd" is Nesterov's
    lr: float = 0.1  # for the SUM of the members' gradients; cosine to 0
    weight_decay: float = 1e-4  # not on biases and other vectors
    momentum: float = 0.9
    warmup_epochs: float = 0.0  # linear from lr / 100
    label_smoothing: float = 0.0  # on the labels' loss only
    mixup: float = 0.0  # alpha of the Beta distribution; 0 is off
    ema_decay: float = 0.0  # 0 is off
    clip_norm: float = 0.0  # largest norm of the summed gradient; 0 is off
    accumulate: int = 1  # batches per optimiser step
    # What happens to entries of a tensor that no arch of the step used: "dense" as published, momentum and
    # decay still move them; "masked", they keep their value and their optimiser state.
    untouched: Literal["dense", "masked"] = "dense"
    # Who teaches the losses "teacher" and "distill". "largest": the largest subnet as it was at this phase's
    # entry, before `at_entry`, frozen; phases in a row that all say so keep the teacher of the first.
    # "given": what `train` was given.
    teacher: Literal["none", "largest", "given"] = "none"
    kd_ratio: float = 1.0  # weight of the soft loss beside that of the labels in the loss "teacher"
    divergence: Divergence = "kl"  # of every soft loss
    frozen: tuple[str, ...] = ()  # patterns of `Supernet.shared_state` names that do not move in this phase
    at_entry: tuple[Callable[[Supernet], None], ...] = ()  # deterministic changes of the weights
    skippable: bool = False  # see `Recipe.fitted`

    def __post_init__(self) -> None:
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(
                    f"{name} of phase {self.name!r} is {value}; it lies between {low:g} and {high:g}"
                )
        if self.warmup_epochs >= self.epochs:
            raise InputError(
                f"warmup_epochs = {self.warmup_epochs:g} in phase {self.name!r} leaves none of its "
                f"{self.epochs} epochs; make it less"
            )
        for name, known in _WORDS.items():
            word = getattr(self, name)
            if word not in known:
                raise InputError(f"unknown {name} {word!r}{did_you_mean(str(word), known)}")

    def describe(self) -> dict[str, Any]:
        """The phase as JSON-able data."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["policy"] = {"name": self.policy.name, **self.policy.settings}
        plain["open"] = {p: o if isinstance(o, int) else list(o) for p, o in self.open.items()}
        plain["at_entry"] = [f"{f.__module__}:{getattr(f, '__qualname__', f)}" for f in self.at_entry]
        return plain


_LIMITS: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, 1e6),
    ("lr", 0, 1e6),
    ("weight_decay", 0, 1e3),
    ("momentum", 0, 1),
    ("warmup_epochs", 0, 1e6),
    ("label_smoothing", 0, 1),
    ("mixup", 0, 1e3),
    ("ema_decay", 0, 1),
    ("clip_norm", 0, 1e9),
    ("accumulate", 1, 1e6),
    ("kd_ratio", 0, 1e6),
)
_WORDS = {
    "untouched": ("dense", "masked"),
    "teacher": ("none", "largest", "given"),
    "divergence": get_args(Divergence),
}


@dataclass(frozen=True)
class Recipe:
    """Phases that are run one after the other, and the sharing scheme that they are meant for.

    scheme: a file of supernets/schemes, or `package.module:attribute` of one's own. It is a recommendation to
    whoever makes the supernet; another one makes an ablation, which trains as well.
    """

    name: str
    phases: tuple[Phase, ...]
    scheme: str = "slice"

    def __post_init__(self) -> None:
        if not self.phases:
            raise InputError(f"recipe {self.name!r} has no phase")

    @property
    def epochs(self) -> int:
        """Epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    def steps(self, batches: int) -> int:
        """Optimiser steps of all phases together, with so many batches per epoch."""
        return sum(math.ceil(batches / phase.accumulate) * phase.epochs for phase in self.phases)

    def listed(self, space: SearchSpace) -> tuple[Arch, ...]:
        """All archs that the last phase can draw, smallest first, where they are a list; else none."""
        last = self.phases[-1]
        return last.policy.listed(space.restrict(last.open) if last.open else space)

    def fitted(self, space: SearchSpace) -> Recipe:
        """The recipe without the skippable phases that open in `space` just what the one before them did.

        The epochs of one that is left out go to the next phase that stays, or to the last one.
        """
        kept: list[Phase] = []
        spare = 0
        opened = None
        for phase in self.phases:
            opens = [choice.options for choice in space.restrict(phase.open).choices]
            if phase.skippable and opens == opened:
                spare += phase.epochs
                continue
            kept.append(replace(phase, epochs=phase.epochs + spare))
            spare, opened = 0, opens
        if spare:
            kept[-1] = replace(kept[-1], epochs=kept[-1].epochs + spare)
        return replace(self, phases=tuple(kept))

    def describe(self) -> dict[str, Any]:
        """The recipe as JSON-able data, for a run's record."""
        phases = [phase.describe() for phase in self.phases]
        return {"name": self.name, "scheme": self.scheme, "phases": phases}
