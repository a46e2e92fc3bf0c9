"""One training step: the members of a plan run in turn, their gradients sum, the weights move once."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.space import SearchSpace
from supernets.batches import Shard
from supernets.compiled import CompiledSubnet
from supernets.distributed import ALONE, Ranks
from supernets.ema import Ema
from supernets.evaluate import channels_last, resize_to
from supernets.exchange import exchange
from supernets.losses import Divergence, distillation, soft_cross_entropy, soft_targets
from supernets.masked import untouched_kept
from supernets.mixup import mixup
from supernets.modes import only_batch_statistics
from supernets.plan import Member, SamplingPolicy, StepPlan
from supernets.recipe import Phase
from supernets.supernet import Supernet
from supernets.teacher import Teacher

# What a draw is for, as the last word of its seed: numpy pads seeds with zeros, so no tag may be 0.
_PLAN, _DROPOUT, _MIXUP = 1, 2, 3


def step_rng(seed: int, step: int, purpose: int = _PLAN, rank: int = 0) -> np.random.Generator:
    """The generator of one step's plan; the same in every process that knows the seed and the step."""
    return np.random.default_rng((seed, step, purpose, rank) if rank else (seed, step, purpose))


@dataclass
class Learner:
    """What moves the weights during one phase."""

    supernet: Supernet
    phase: Phase
    policy: SamplingPolicy
    space: SearchSpace  # what the phase opens
    optimizer: torch.optim.Optimizer
    set_rate: Callable[[int], float]
    ema: Ema | None
    dtype: torch.dtype | None  # of autocast; None is float32 throughout
    scaler: torch.amp.GradScaler | None
    channels_last: bool
    teacher: Teacher | None
    frozen: tuple[nn.Parameter, ...] = ()  # those that the phase does not move
    ranks: Ranks = ALONE
    compiled: CompiledSubnet | None = None

    @property
    def device(self) -> torch.device:
        """Where the shared weights are."""
        return next(self.supernet.parameters()).device


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did, on all ranks together: losses, hits of the first member, whether the weights moved."""

    by_plan: list[tuple[StepPlan, list[float]]]  # each plan that had images, with its members' losses
    images: int
    correct: int
    taken: bool
    stop: int | None = None  # the signal by which a rank was asked to stop

    @property
    def losses(self) -> list[float]:
        """The loss of each member; of several plans, the mean over those that have such a member."""
        rows = [losses for _, losses in self.by_plan]
        places = ([row[i] for row in rows if i < len(row)] for i in range(max(map(len, rows))))
        return [sum(place) / len(place) for place in places]


def backward(
    supernet: Supernet,
    plan: StepPlan,
    x: Tensor,
    targets: Tensor,
    *,
    share: float = 1.0,
    dtype: torch.dtype | None = None,
    teacher: Teacher | None = None,
    kd_ratio: float = 1.0,
    divergence: Divergence = "kl",
    scale: Callable[[Tensor], Tensor] | None = None,
    compiled: CompiledSubnet | None = None,
) -> tuple[Tensor, Tensor]:
    """Adds the gradient of `share` times each member's weighted loss to the shared weights.

    x [B, C, H, W] is resized to each member, and given to the teacher as it is, once; targets [B, K] are
    probabilities. Each member's graph is gone before the next one runs, so the memory is that of the largest
    alone. Returns the losses [members], times `share`, and the first member's logits [B, K], both detached.
    """
    first: Tensor | None = None
    outside: Tensor | None = None
    losses = []
    if plan.needs_teacher:
        assert teacher is not None, "train() checks that there is one"
        with torch.no_grad(), torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None):
            outside = teacher(x)
    for member in plan.members:
        module = supernet.subnet(member.arch)
        module = module.train() if member.regularise else only_batch_statistics(module)
        with torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None):
            inputs = resize_to(x, supernet.space.input_shape(member.arch))
            exits: Any = module.exits if member.exits else None
            outputs: Sequence[Tensor]
            if exits is not None:
                outputs = exits(inputs, member.exits)
            elif compiled is not None and compiled.arch == member.arch:
                outputs = (compiled(module, inputs),)
            else:
                outputs = (module(inputs),)
        source = first if member.loss == "inplace" else outside
        each = (_loss(member, logits, targets, source, kd_ratio, divergence) for logits in outputs)
        summed = reduce(add, each)
        loss = summed * (member.weight * share / len(outputs))
        (loss if scale is None else scale(loss)).backward()
        losses.append(loss.detach())
        if first is None:
            first = outputs[-1].detach()
        del module, exits, outputs, each, summed, loss
    assert first is not None
    return torch.stack(losses), first


def _loss(
    member: Member,
    logits: Tensor,
    targets: Tensor,
    source: Tensor | None,
    kd_ratio: float,
    divergence: Divergence,
) -> Tensor:
    """The member's loss, where `source` are the logits that it learns from."""
    if member.loss == "labels":
        return soft_cross_entropy(logits, targets)
    assert source is not None
    soft = distillation(logits, source, divergence)
    return soft_cross_entropy(logits, targets) + kd_ratio * soft if member.loss == "teacher" else soft


def train_step(
    learner: Learner,
    plans: Sequence[StepPlan],
    batches: Iterable[Shard],
    *,
    share: float,
    seed: int,
    step: int,
    updates: int,
    stop: int | None = None,
) -> Outcome:
    """One optimiser step over `batches`, each weighing `share`, on all ranks at once.

    plans: one for all ranks, or one for each; if a plan is spread, its member i runs on batch i. `step`
    counts from the start of the training and seeds all that is random; `updates` from that of the phase. A
    step whose losses or gradient are not finite on any rank is skipped by all and leaves no trace: batch-norm
    buffers, which a bad batch would poison for ever, are put back. `stop` is the signal, if any, that asked
    this rank to stop; the outcome has what all agree on.
    """
    supernet, phase, device, ranks = learner.supernet, learner.phase, learner.device, learner.ranks
    plan = plans[ranks.rank % len(plans)]
    buffers = [(buffer, buffer.clone()) for buffer in supernet.buffers()]
    blend = step_rng(seed, step, _MIXUP)
    total = torch.zeros(len(plan.members), device=device)
    images, correct, expected = 0, 0, 0
    learner.optimizer.zero_grad(set_to_none=True)
    with _torch_seed(seed, step, device, ranks.rank):
        for number, (x, y, first, count) in enumerate(batches):
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            targets = soft_targets(y, supernet.space.classes, phase.label_smoothing)
            if phase.mixup:
                x, targets = mixup(x, targets, phase.mixup, blend, ranks, first, count)
            if learner.channels_last:
                x = channels_last(x)
            expected += count * math.prod(y.shape[1:])
            if not len(y):  # a batch with fewer images than ranks
                continue
            losses, logits = backward(
                supernet,
                plan.on(number),
                x,
                targets,
                share=share * (len(y) / count),
                dtype=learner.dtype,
                teacher=learner.teacher,
                kd_ratio=phase.kd_ratio,
                divergence=phase.divergence,
                scale=learner.scaler.scale if learner.scaler else None,
                compiled=learner.compiled,
            )
            if plan.spread:
                total[number] += losses[0] / share
            else:
                total += losses
            images += y.numel()
            correct += int((logits.argmax(dim=-1) == targets.argmax(dim=-1)).sum())
    assert expected, "an epoch ended before its steps"
    for parameter in learner.frozen:
        parameter.grad = None  # then neither momentum nor decay moves it
    values = [float(v) for v in total.tolist()]
    outcome = Outcome([(plan, values)], images, correct, False, stop)
    if ranks.size > 1:
        outcome = _together(learner, plans, outcome, expected, buffers)
    finite = _finite_gradient(learner) and all(math.isfinite(v) for _, row in outcome.by_plan for v in row)
    if finite:
        _move(learner, plans)
        if learner.ema is not None:
            learner.ema.update(supernet.shared_state(), updates)
    else:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    if learner.scaler:
        learner.scaler.update()
    learner.optimizer.zero_grad(set_to_none=True)
    return replace(outcome, taken=finite)


def _together(
    learner: Learner,
    plans: Sequence[StepPlan],
    mine: Outcome,
    expected: int,
    buffers: Sequence[tuple[Tensor, Tensor]],
) -> Outcome:
    """The outcome over all ranks, whose gradients and buffers are then alike. `expected`: images of all."""
    ranks, supernet = learner.ranks, learner.supernet
    row = ranks.rank % len(plans)
    weights, rows = [0.0] * len(plans), [[0.0] * len(plan.members) for plan in plans]
    weights[row], rows[row] = float(mine.images), mine.by_plan[0][1]
    signals = [float(mine.stop == signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    told = exchange(
        ranks,
        supernet.parameters(),
        buffers,
        mine.images / expected,
        [*signals, float(mine.correct), *weights, *(loss for losses in rows for loss in losses)],
    )
    stop = next((s for s, asked in zip((signal.SIGTERM, signal.SIGINT), told, strict=False) if asked), None)
    correct, weights, flat = round(told[2]), told[3 : 3 + len(plans)], iter(told[3 + len(plans) :])
    images = round(sum(weights))
    # Losses came weighed by the ranks' images out of `expected`; fewer came where files are damaged.
    own = [[next(flat) for _ in plan.members] for plan in plans]
    by_plan = [
        (plan, [loss * expected / weight if weight else math.nan for loss in losses])
        for plan, losses, weight in zip(plans, own, weights, strict=True)
        if weight or not images
    ]
    if 0 < images != expected:
        for parameter in supernet.parameters():
            if parameter.grad is not None:
                parameter.grad *= expected / images
    return Outcome(by_plan, images, correct, False, stop)


def _finite_gradient(learner: Learner) -> bool:
    """Unscales and clips the summed gradient; whether its norm is finite."""
    if learner.scaler:
        learner.scaler.unscale_(learner.optimizer)
    parameters = [p for p in learner.supernet.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not math.isfinite(float(norm)):
        return False
    if learner.phase.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, learner.phase.clip_norm, norm)
    return True


def _move(learner: Learner, plans: Sequence[StepPlan]) -> None:
    """The optimiser's step."""
    masked = learner.phase.untouched == "masked"
    archs = [arch for plan in plans for arch in plan.archs]
    around = untouched_kept(learner.supernet, learner.optimizer, archs) if masked else nullcontext()
    with around:
        if learner.scaler:
            learner.scaler.step(learner.optimizer)
        else:
            learner.optimizer.step()


@contextmanager
def _torch_seed(seed: int, step: int, device: torch.device, rank: int) -> Iterator[None]:
    """Dropout draws from torch's global generators: seeds them for the step and puts them back after it."""
    number = int(step_rng(seed, step, _DROPOUT, rank).integers(2**62))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(number)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield
