"""One training step: the members of a plan run in turn, their gradients sum, the weights move once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.space import SearchSpace
from supernets.ema import Ema
from supernets.evaluate import channels_last, resize_to
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


def step_rng(seed: int, step: int, purpose: int = _PLAN) -> np.random.Generator:
    """The generator of one step's plan; the same in every process that knows the seed and the step."""
    return np.random.default_rng((seed, step, purpose))


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

    @property
    def device(self) -> torch.device:
        """Where the shared weights are."""
        return next(self.supernet.parameters()).device


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did: each member's loss, hits of the first member, and whether the weights moved."""

    losses: list[float]
    images: int
    correct: int
    taken: bool


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
) -> tuple[Tensor, Tensor]:
    """Adds the gradient of `share` times each member's weighted loss to the shared weights.

    x [B, C, H, W] is resized to each member, and given to the teacher as it is, once; targets [B, K] are
    probabilities. Each member's graph is gone before the next one runs, so the memory is that of the largest
    alone. Returns the losses [members], times
    `share`, and the first member's logits [B, K], both detached.
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
            outputs: Sequence[Tensor] = exits(inputs, member.exits) if exits else (module(inputs),)
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
    plan: StepPlan,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    share: float,
    seed: int,
    step: int,
    updates: int,
) -> Outcome:
    """One optimiser step over `batches`, each weighing `share`; if the plan is spread, member i on batch i.

    `step` counts from the start of the training and seeds all that is random; `updates` from that of the
    phase. A step whose losses or gradient are not finite is skipped and leaves no trace: batch-norm buffers,
    which a bad batch would poison for ever, are put back.
    """
    supernet, phase, device = learner.supernet, learner.phase, learner.device
    buffers = [(buffer, buffer.clone()) for buffer in supernet.buffers()]
    blend = step_rng(seed, step, _MIXUP)
    total: Tensor | None = None
    images, correct = 0, 0
    learner.optimizer.zero_grad(set_to_none=True)
    with _torch_seed(seed, step, device):
        for number, (x, y) in enumerate(batches):
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            if learner.channels_last:
                x = channels_last(x)
            targets = soft_targets(y, supernet.space.classes, phase.label_smoothing)
            if phase.mixup:
                x, targets = mixup(x, targets, phase.mixup, blend)
            losses, logits = backward(
                supernet,
                plan.on(number),
                x,
                targets,
                share=share,
                dtype=learner.dtype,
                teacher=learner.teacher,
                kd_ratio=phase.kd_ratio,
                divergence=phase.divergence,
                scale=learner.scaler.scale if learner.scaler else None,
            )
            if total is None:
                total = losses / share if plan.spread else losses
            else:
                total = torch.cat((total, losses / share)) if plan.spread else total + losses
            images += y.numel()
            correct += int((logits.argmax(dim=-1) == targets.argmax(dim=-1)).sum())
    assert total is not None, "an epoch ended before its steps"
    for parameter in learner.frozen:
        parameter.grad = None  # then neither momentum nor decay moves it
    values = [float(v) for v in total.tolist()]
    finite = _finite_gradient(learner) and all(math.isfinite(v) for v in values)
    if finite:
        _move(learner, plan)
        if learner.ema is not None:
            learner.ema.update(supernet.shared_state(), updates)
    else:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    if learner.scaler:
        learner.scaler.update()
    learner.optimizer.zero_grad(set_to_none=True)
    return Outcome(values, images, correct, finite)


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


def _move(learner: Learner, plan: StepPlan) -> None:
    """The optimiser's step."""
    masked = learner.phase.untouched == "masked"
    around = untouched_kept(learner.supernet, learner.optimizer, plan.archs) if masked else nullcontext()
    with around:
        if learner.scaler:
            learner.scaler.step(learner.optimizer)
        else:
            learner.optimizer.step()


@contextmanager
def _torch_seed(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generators: seeds them for the step and puts them back after it."""
    number = int(step_rng(seed, step, _DROPOUT).integers(2**62))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(number)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield
