"""Trains any supernet by any recipe."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from search_spaces.errors import InputError
from supernets.batches import Batches, shards
from supernets.checkpoint import save_tensors
from supernets.compiled import check_compiler
from supernets.distributed import ALONE, Ranks
from supernets.files import clean_temporaries, lock
from supernets.interrupt import Interrupted, StopRequest, stop_on_signal
from supernets.phases import (
    Span,
    check_plan,
    check_recipe,
    freeze_teacher,
    learner_of,
    phase_teacher,
    spans_of,
)
from supernets.plan import StepPlan
from supernets.precision import Precision, autocast_dtype, tensor_cores
from supernets.prefetch import ahead
from supernets.progress import Clock, EpochSums, Progress, append_line, truncate_log
from supernets.recipe import Phase, Recipe
from supernets.resume import WEIGHTS, Position, Saved, load_training, save_training
from supernets.step import Learner, Outcome, step_rng, train_step
from supernets.supernet import Supernet
from supernets.teacher import Teacher

__all__ = ["Batches", "Interrupted", "Progress", "TrainingDiverged", "train"]

LOG = "log.jsonl"
_EPOCH_END_SHARE = 0.1  # an epoch's end saves once this share of the interval is over: cheap for tiny runs
_ECHO_S = 2.0  # torchrun hands a signal on at once
_CURE = "lower lr, set clip_norm, or train in fp32; and check the data for NaN"


class TrainingDiverged(RuntimeError):
    """Too many steps in a row, or most of all, had a loss or a gradient that is not finite."""


@dataclass
class _Run:
    """What stays the same during one call of `train`, and when it last saved."""

    supernet: Supernet
    data: Batches
    folder: Path
    seed: int
    settings: dict[str, Any]
    report: Callable[[Progress], None] | None
    save_every_s: float
    max_bad_steps: int
    epochs: int
    steps: int
    stop: StopRequest
    ranks: Ranks
    vary_archs: bool
    agreed_stop: int | None = None  # the signal at which all ranks stop
    saved_at: float = field(default_factory=time.monotonic)

    def save(self, learner: Learner, position: Position) -> None:
        if self.ranks.first:
            save_training(self.folder, learner, position, self.settings)
        self.saved_at = time.monotonic()


def train(
    supernet: Supernet,
    recipe: Recipe,
    data: Batches,
    *,
    folder: Path | str,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: Precision = "auto",
    checkpoint_minutes: float = 5.0,
    resume: bool = True,
    report: Callable[[Progress], None] | None = None,
    channels_last: bool = True,
    max_bad_steps: int = 20,
    teacher: Teacher | None = None,
    ranks: Ranks = ALONE,
    vary_archs: bool = False,
    compile_largest: bool = False,
) -> None:
    """Trains `supernet` in place by `recipe`, and leaves its weights in `folder`.

    Files: checkpoint.safetensors (+ .json, and the one before it), log.jsonl with one line per epoch,
    teacher-N.safetensors (+ .json) where phase N freezes its largest subnet as a teacher, and at the end
    supernet.safetensors (+ .json): the averaged weights where the last phase keeps an average. The
    supernet then holds the same. A training that was stopped or killed goes on from its last checkpoint, bit
    for bit as if nothing had happened (same machine, device and thread count); one that is complete returns.

    Args:
        precision: "auto" is bf16 on CUDA and fp32 elsewhere.
        checkpoint_minutes: wall time between checkpoints; what a kill loses at most. 0 saves at each step.
        resume: go on from a checkpoint in `folder`; otherwise one there is refused.
        report: called after each step.
        channels_last: lay images out with channels innermost, where they have two spatial dimensions.
        max_bad_steps: skipped steps in a row before giving up.
        teacher: images [B, C, H, W] at the data's size -> logits [B, K], for phases whose teacher is "given".
        ranks: the processes that train together, from `supernets.distributed.joined`; each calls this. Each
            takes its part of every batch, so that the step is that of one process: equal up to the order of
            sums, except that batch normalisation sees a rank's own images and dropout draws per rank. What
            is saved does not depend on the ranks; any number may go on. The first alone writes.
        vary_archs: each rank draws a plan of its own, for more archs per step.
        compile_largest: run the largest subnet of each phase through torch.compile.

    Raises:
        InputError: settings that do not fit, or a checkpoint that is damaged or of another training.
        Busy: another process trains in `folder`.
        Interrupted: SIGINT or SIGTERM came; the state is saved. A second signal raises
            KeyboardInterrupt at once.
        TrainingDiverged: the loss stays NaN or infinite, or was so in most steps.
        OSError: `folder` cannot be written or the disk is full; older checkpoints are intact.
    """
    check_recipe(recipe, supernet.space)
    folder, device = Path(folder), torch.device(device)
    if teacher is None and (asking := [p.name for p in recipe.phases if p.teacher == "given"]):
        raise InputError(f"phase {asking[0]!r} of recipe {recipe.name!r} needs a teacher; give one")
    dtype = autocast_dtype(precision, device)
    recipe = recipe.fitted(supernet.space)
    spans = spans_of(recipe, data.steps)
    settings: dict[str, Any] = {
        "recipe": recipe.describe(),
        "space": supernet.space.digest,
        "scheme": type(supernet.scheme).__name__,
        "seed": seed,
        "batches": data.steps,
        "precision": str(dtype or torch.float32).removeprefix("torch."),
    }
    if vary_archs:
        settings["vary_archs"] = True
    if compile_largest:
        check_compiler(device)
        settings["compile_largest"] = True
    settings = json.loads(json.dumps(settings))  # as it will be read back
    with (
        ExitStack() as held,
        tensor_cores(device),
        stop_on_signal(_ECHO_S if ranks.size > 1 else 0.0) as stop,
    ):
        saved = ranks.from_first(lambda: _open(folder, settings, resume, held))
        supernet.to(device)
        ranks.copy_first(list(supernet.shared_state().values()))
        run = _Run(
            supernet,
            data,
            folder,
            seed,
            settings,
            report,
            checkpoint_minutes * 60,
            max_bad_steps,
            epochs=recipe.epochs,
            steps=spans[-1].first_step + spans[-1].steps * recipe.phases[-1].epochs,
            stop=stop,
            ranks=ranks,
            vary_archs=vary_archs and ranks.size > 1,
        )
        position = saved.position if saved else Position()
        if ranks.first:
            truncate_log(folder / LOG, position.epoch)
        if saved is not None:
            saved.restore_weights(supernet)
        learner: Learner | None = None
        for span in spans:
            if position.epoch >= span.end and span is not spans[-1]:
                continue
            inside = position.global_step > span.first_step
            if not inside:
                if span.phase.teacher == "largest" and span.teacher_of == span.number:
                    ranks.from_first(partial(freeze_teacher, folder, span, supernet, data))
                for change in span.phase.at_entry:
                    change(supernet)
            of_phase = phase_teacher(supernet, span, folder, teacher)
            learner = learner_of(supernet, span, dtype, channels_last, of_phase, ranks, compile_largest)
            if inside:
                assert saved is not None
                saved.restore_learner(learner)
            _run_phase(run, learner, span, position)
        assert learner is not None
        _finish(run, learner, position)


def _open(folder: Path, settings: dict[str, Any], resume: bool, held: ExitStack) -> Saved | None:
    """The checkpoint to go on from; the folder stays locked while `held` is open."""
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(lock(folder))
    clean_temporaries(folder)
    saved = load_training(folder, settings)
    if saved is not None and not resume:
        raise InputError(f"{folder} already holds a training; resume it or choose another folder")
    return saved


def _run_phase(run: _Run, learner: Learner, span: Span, position: Position) -> None:
    """All steps of a phase from `position` on, which it moves."""
    phase, clock = span.phase, Clock()
    unit = "tokens" if run.supernet.space.reads_tokens else "images"
    while position.epoch < span.end:
        batches = shards(run.data, position.epoch, position.step * phase.accumulate, run.ranks)
        if learner.device.type == "cuda" and getattr(run.data, "threaded", False):
            batches = ahead(batches)  # on a CPU it would take the cores from the training itself
        lr = 0.0
        while position.step < span.steps:
            updates = position.global_step - span.first_step
            lr = learner.set_rate(updates)
            plans = _plans(run, learner, position.global_step)
            count = min(phase.accumulate, run.data.steps - position.step * phase.accumulate)
            plans = [plan.over(count) for plan in plans]
            outcome = train_step(
                learner,
                plans,
                islice(batches, count),
                share=1.0 / count,
                seed=run.seed,
                step=position.global_step,
                updates=updates,
                stop=run.stop.signum,
            )
            run.agreed_stop = outcome.stop
            _count(run, learner, position, outcome)
            position.sums.seconds += clock.tick(outcome.images)
            if run.report is not None:
                run.report(_progress(run, position, outcome, phase, clock, lr))
            if position.step == span.steps:
                break
            _save_if_due(run, learner, position, share=1.0)
        if run.ranks.first:
            append_line(run.folder / LOG, position.sums.line(position.epoch + 1, phase.name, lr, unit))
        position.epoch, position.step, position.sums = position.epoch + 1, 0, EpochSums()
        _save_if_due(run, learner, position, share=_EPOCH_END_SHARE)


def _plans(run: _Run, learner: Learner, step: int) -> list[StepPlan]:
    """The step's plan, or that of each rank: every rank makes all, so that a policy learns alike on all."""
    drawn = range(run.ranks.size if run.vary_archs else 1)
    plans = [learner.policy.plan(learner.space, step_rng(run.seed, step, rank=rank)) for rank in drawn]
    for plan in plans:
        check_plan(plan, learner)
    return plans


def _count(run: _Run, learner: Learner, position: Position, outcome: Outcome) -> None:
    """Enters a step's outcome into the position; gives up after too many bad ones."""
    position.step += 1
    position.global_step += 1
    if outcome.taken:
        position.bad_in_a_row = 0
        position.sums.add(outcome.losses, outcome.images, outcome.correct)
        for plan, losses in outcome.by_plan:
            learner.policy.observe(plan, losses)
        return
    position.bad_in_a_row += 1
    position.skipped += 1
    position.sums.skipped += 1
    if position.bad_in_a_row >= run.max_bad_steps:
        raise TrainingDiverged(
            f"{position.bad_in_a_row} steps in a row had a loss or gradient that is not finite, up to step "
            f"{position.global_step} (phase {learner.phase.name!r}, lr {learner.phase.lr:g}); " + _CURE
        )


def _save_if_due(run: _Run, learner: Learner, position: Position, *, share: float) -> None:
    """Saves when `share` of the interval has gone by, or when a signal asks to stop."""
    # Several ranks stop at the step at which all know of the signal; one on its own need not wait for it.
    stop = run.agreed_stop if run.ranks.size > 1 else run.stop.signum
    if stop is not None:
        run.save(learner, position)
        raise Interrupted(run.folder, position.global_step, stop)
    if time.monotonic() - run.saved_at >= run.save_every_s * share:
        run.save(learner, position)


def _finish(run: _Run, learner: Learner, position: Position) -> None:
    """The last checkpoint, then the weights on their own, if most of the steps were worth something."""
    if position.skipped > position.global_step / 2:
        raise TrainingDiverged(
            f"{position.skipped} of {position.global_step} steps had a loss or gradient that is not finite; "
            + _CURE
        )
    run.save(learner, position)
    if learner.ema is not None:
        run.supernet.load_shared_state(learner.ema.state)
    meta = {"steps": position.global_step, "skipped": position.skipped, "ema": learner.ema is not None}
    if run.ranks.first:
        save_tensors(run.folder / WEIGHTS, run.supernet.shared_state(), {**run.settings, **meta})


def _progress(
    run: _Run, position: Position, outcome: Outcome, phase: Phase, clock: Clock, lr: float
) -> Progress:
    return Progress(
        phase=phase.name,
        epoch=position.epoch + 1,
        epochs=run.epochs,
        step=position.global_step,
        steps=run.steps,
        loss=outcome.losses[0] if outcome.taken else math.nan,
        accuracy=outcome.correct / outcome.images if outcome.taken else math.nan,
        images_per_s=1.0 / clock.per_image if clock.per_image else 0.0,
        eta_s=(run.steps - position.global_step) * clock.per_step,
        lr=lr,
        skipped=position.skipped,
    )
