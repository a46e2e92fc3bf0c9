"""The phases of a recipe in a training: when each begins, if it fits, who teaches, what it steps with."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from supernets.batches import Batches
from supernets.compiled import CompiledSubnet
from supernets.distributed import Ranks
from supernets.ema import Ema
from supernets.optimiser import check_optimizer, make_optimizer, make_schedule
from supernets.plan import StepPlan
from supernets.recipe import Phase, Recipe
from supernets.step import Learner
from supernets.supernet import Supernet
from supernets.teacher import Teacher, freeze_largest, load_frozen


@dataclass(frozen=True)
class Span:
    """A phase's place in the training. Epochs and steps count over all phases; `end` is exclusive."""

    phase: Phase
    begin: int
    end: int
    steps: int  # optimiser steps per epoch
    first_step: int
    number: int  # from 1
    teacher_of: int  # the phase at whose entry this one's teacher is frozen


def spans_of(recipe: Recipe, batches: int) -> list[Span]:
    """Each phase with the epochs and steps at which it begins and ends."""
    if batches < 1:
        raise InputError("there is no batch of training images; use a smaller batch size or more images")
    spans: list[Span] = []
    epoch = step = 0
    for number, phase in enumerate(recipe.phases, start=1):
        steps = math.ceil(batches / phase.accumulate)
        before = spans[-1] if spans else None
        kept = before is not None and before.phase.teacher == phase.teacher == "largest"
        teacher_of = before.teacher_of if before is not None and kept else number
        spans.append(Span(phase, epoch, epoch + phase.epochs, steps, step, number, teacher_of))
        epoch, step = epoch + phase.epochs, step + steps * phase.epochs
    return spans


def check_recipe(recipe: Recipe, space: SearchSpace) -> None:
    """Raises InputError for a phase that does not fit the space.

    One that blends inputs where they are tokens, which have no in-between; one that opens or draws what is
    not there; one whose optimiser timm does not know.
    """
    for phase in recipe.phases:
        check_optimizer(phase)
        phase.policy.listed(space.restrict(phase.open) if phase.open else space)
        if phase.mixup and space.reads_tokens:
            raise InputError(
                f"mixup = {phase.mixup:g} in phase {phase.name!r} blends images, but {space.name!r} reads "
                "tokens; set mixup to 0"
            )


def check_plan(plan: StepPlan, learner: Learner) -> None:
    """Raises InputError for a plan that does not fit its phase."""
    if plan.spread and len(plan.members) != learner.phase.accumulate:
        raise InputError(
            f"policy {learner.policy.name!r} gives {len(plan.members)} archs a batch each, but phase "
            f"{learner.phase.name!r} accumulates {learner.phase.accumulate}; make the two equal"
        )
    if learner.teacher is None and plan.needs_teacher:
        raise InputError(
            f"policy {learner.policy.name!r} asks for a teacher, which phase {learner.phase.name!r} does not "
            'have; set Phase.teacher to "largest" or "given"'
        )


def _teacher_file(folder: Path, span: Span) -> Path:
    return folder / f"teacher-{span.teacher_of}.safetensors"


def freeze_teacher(folder: Path, span: Span, supernet: Supernet, data: Batches) -> None:
    """Keeps the largest subnet as it is now, in the folder, as the teacher of the phase."""
    freeze_largest(_teacher_file(folder, span), supernet, data.epoch(span.begin))


def phase_teacher(supernet: Supernet, span: Span, folder: Path, given: Teacher | None) -> Teacher | None:
    """Who teaches in the phase; a frozen one always comes from its file, so that a resume has the same."""
    if span.phase.teacher == "largest":
        return load_frozen(_teacher_file(folder, span), supernet)
    return given if span.phase.teacher == "given" else None


def learner_of(
    supernet: Supernet,
    span: Span,
    dtype: torch.dtype | None,
    channels_last: bool,
    teacher: Teacher | None,
    ranks: Ranks,
    compile_largest: bool,
) -> Learner:
    """A fresh optimiser, schedule and average for a phase."""
    phase = span.phase
    space = supernet.space.restrict(phase.open) if phase.open else supernet.space
    optimizer = make_optimizer(supernet, phase)
    return Learner(
        supernet=supernet,
        phase=phase,
        policy=copy.deepcopy(phase.policy),  # what it learns stays within the phase
        space=space,
        optimizer=optimizer,
        set_rate=make_schedule(optimizer, phase, span.steps),
        ema=Ema(supernet.shared_state(), phase.ema_decay) if phase.ema_decay else None,
        dtype=dtype,
        scaler=torch.amp.GradScaler("cuda") if dtype is torch.float16 else None,
        channels_last=channels_last,
        teacher=teacher,
        frozen=_frozen(supernet, phase),
        ranks=ranks,
        compiled=CompiledSubnet(supernet.space, space.largest) if compile_largest else None,
    )


def _frozen(supernet: Supernet, phase: Phase) -> tuple[torch.nn.Parameter, ...]:
    """The parameters whose names match the phase's patterns."""
    return tuple(
        tensor
        for name, tensor in supernet.shared_state().items()
        if isinstance(tensor, torch.nn.Parameter) and any(fnmatchcase(name, p) for p in phase.frozen)
    )
