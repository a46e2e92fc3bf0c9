"""What a training will do, said before it begins: its data, its space, its steps and what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from nas.console import Console, quantity
from nas.threads import suitable_threads
from nas.train_job import Job
from search_spaces import SearchSpace


def tell(job: Job, console: Console) -> None:
    """What will be trained, on what."""
    parts = ", ".join(f"{count:,} {name}" for name, count in job.data.sizes.items())
    console.say(f"[bold]data[/bold]      {job.data.name}: {parts}; {job.data.shape}")
    if job.data.skipped:
        console.warn(
            f"{len(job.data.skipped)} {job.data.inputs} could not be read and are left out; "
            "run.json names them"
        )
    console.say(
        f"[bold]space[/bold]     {job.space.name}: {quantity(float(job.space.size))} networks, "
        f"{_span(job.space, 'params')} parameters, {_span(job.space, 'macs')} MACs"
    )
    scheme, meant = job.settings.scheme, job.recipe.scheme
    if scheme != meant:
        console.say(f"[bold]scheme[/bold]    {scheme}, where recipe {job.recipe.name} has {meant}")


def _span(space: SearchSpace, cost: Literal["params", "macs"]) -> str:
    """From the two networks themselves: a table for all of them takes longer to make."""
    least, most = (
        sum(getattr(layer, cost) for layer in space.layers(arch)) for arch in (space.smallest, space.largest)
    )
    return f"{quantity(float(least))} to {quantity(float(most))}"


def dry_run(job: Job, console: Console) -> Mapping[str, Any]:
    """The plan of a training and what it will cost, from one timed step."""
    steps = job.recipe.steps(job.batches().steps)
    with suitable_threads(job.space, job.settings.batch_size):
        seconds = _estimate(job)
    console.say(
        f"[bold]plan[/bold]      {job.recipe.name}: {job.recipe.epochs} epochs, {steps:,} steps of "
        f"{job.settings.batch_size} {job.data.inputs} on {job.device}; "
        f"about {seconds / 60:.1f} min by one timed step"
    )
    return {
        "plan": job.recipe.describe(),
        "steps": steps,
        "estimated_seconds": seconds,
        "data": job.data.describe(),
        "space": space_record(job.space),
    }


def _estimate(job: Job) -> float:
    """Seconds of the passes of all steps, by those of one step of the last phase, timed on the second go."""
    rng = np.random.default_rng(0)
    counts = []
    for phase in job.recipe.phases:
        plan = phase.policy.plan(job.space.restrict(phase.open), rng)
        counts.append(len(plan.members) * (1 if plan.spread else phase.accumulate))
    supernet = job.supernet().to(job.device)
    batch = min(job.settings.batch_size, job.data.sizes["train"])
    for _ in range(2):
        start = time.perf_counter()
        for arch in plan.archs:
            supernet(job.space.example(arch, batch, job.device), arch).sum().backward()
        if job.device != "cpu":
            torch.cuda.synchronize()
    seconds_per_pass = (time.perf_counter() - start) / len(plan.archs)
    batches = job.batches().steps
    steps = [math.ceil(batches / phase.accumulate) * phase.epochs for phase in job.recipe.phases]
    return seconds_per_pass * sum(n * count for n, count in zip(steps, counts, strict=True))


def space_record(space: SearchSpace) -> dict[str, Any]:
    return {"name": space.name, "settings": space.settings, "digest": space.digest, "size": str(space.size)}
