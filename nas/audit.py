"""`nas audit`: whether the ranking of a supernet can be trusted.

A search believes that a network which scores higher with shared weights is better when trained alone. Here a
few networks, spread over the cost, are scored both ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.audit_report import write_audit
from nas.console import Console, quantity
from nas.cost_spread import spread_over_cost
from nas.rank_fidelity import Fidelity, fidelity
from nas.run_settings import AuditSettings
from nas.stand_alone import StandAlone, alone_recipe
from nas.threads import suitable_threads
from nas.train_job import Job, prepare
from nas.trained import check_data, is_trained, load_supernet, settings_of, weights_digest
from search_spaces import Arch, InputError
from supernets import Supernet
from supernets.files import clean_temporaries, lock
from supernets.trainer import Progress

FOLDER = "audit"  # inside the run folder: scores of networks trained alone


@dataclass(frozen=True)
class Audit:
    """Networks with their two scores, in order of multiply-adds, and what follows from them."""

    archs: tuple[Arch, ...]
    params: NDArray[np.int64]  # [n]
    macs: NDArray[np.int64]
    shared: NDArray[np.float64]  # scores with the supernet's weights, in `unit`
    alone: NDArray[np.float64]  # scores after a training alone
    what: str  # "accuracy"
    higher_is_better: bool
    fidelity: Fidelity


def audit(
    supernet: Supernet,
    archs: Sequence[Arch],
    alone: StandAlone,
    *,
    report: Callable[[int, Progress], None] | None = None,
    done: Callable[[int], None] | None = None,
) -> Audit:
    """Scores each of `archs` with the weights of `supernet` and, trained if need be, alone.

    Args:
        report: called after each training step with the network's number and the step.
        done: called when a network's score alone is there, with its number.

    Raises:
        InputError: fewer than 3 archs, of which no order can be judged.
        Interrupted: as `StandAlone.score`; what was scored is kept.
    """
    if len(archs) < 3:
        raise InputError(f"{len(archs)} networks have no order to speak of; an audit takes at least 3")
    population = alone.space.index(archs)
    counted = alone.space.costs(population)
    objective = alone.objective(supernet)
    shared = objective.evaluate(population)
    scores = []
    for number, arch in enumerate(archs):
        step = None if report is None else lambda p, number=number: report(number, p)
        scores.append(alone.score(arch, step))
        if done is not None:
            done(number)
    trained = np.array(scores)
    good = -objective.minimised(shared), -objective.minimised(trained)
    return Audit(
        tuple(archs),
        counted.params,
        counted.macs,
        shared,
        trained,
        objective.name,
        objective.direction == "maximize",
        fidelity(*good, counted.params, counted.macs),
    )


def run(settings: AuditSettings, console: Console) -> Mapping[str, Any]:
    """The command. Returns what `--json` prints."""
    folder = Path(settings.run)
    job = _job(folder, settings)
    listed = job.recipe.listed(job.space)
    archs = spread_over_cost(
        job.space, settings.networks, settings.seed, listed if settings.only_trained else ()
    )
    if len(archs) < 3:
        raise InputError(f"{job.space.name!r} has {len(archs)} networks; an audit takes at least 3")
    if listed and (others := len(set(archs) - set(listed))):
        console.warn(
            f"{others} of the {len(archs)} networks are none that the training drew; --only-trained leaves "
            "such networks out"
        )
    alone = StandAlone(
        job.space,
        job.data,
        alone_recipe(job.recipe, settings.epochs),
        folder / FOLDER,
        batch_size=job.settings.batch_size,
        seed=settings.seed,
        device=job.device,
        precision=job.settings.precision,
    )
    left = [arch for arch in archs if alone.known(arch) is None]
    phase = alone.recipe.phases[0]
    console.say(
        f"[bold]audit[/bold]     {len(archs)} networks of {job.space.name}, spread over multiply-adds; "
        f"{len(left)} to be trained alone, {phase.epochs} epochs each, "
        f"{alone.steps() * len(left):,} steps in all on {job.device}"
    )
    again = f"nas audit {folder}" + _flags(settings)
    with suitable_threads(job.space, job.settings.batch_size):
        if settings.dry_run:
            return _dry_run(job, archs, left, alone, console)
        try:
            with lock(folder):
                clean_temporaries(folder)
                found = _run(job, folder, archs, left, alone, console)
                document = write_audit(found, folder, _facts(job, folder, alone, settings), console)
        except KeyboardInterrupt as stop:
            stop.resume_command = again  # type: ignore[attr-defined]
            raise
    console.next_step(f"nas search --supernet {folder} --target jetson")
    return document


def _job(folder: Path, settings: AuditSettings) -> Job:
    """The training of the run, with its data where it now lies."""
    trained = settings_of(folder)
    job = prepare(replace(trained, data_dir=settings.data_dir or trained.data_dir, device=settings.device))
    if not is_trained(folder):
        raise InputError(f"{folder} is not trained to its end; first: nas train --resume {folder}")
    check_data(folder, job.data)
    return job


def _run(
    job: Job, folder: Path, archs: Sequence[Arch], left: Sequence[Arch], alone: StandAlone, console: Console
) -> Audit:
    supernet = load_supernet(folder, job.settings, job.data).to(job.device)
    steps, pending = alone.steps(), {arch: number for number, arch in enumerate(left)}
    with console.progress("training alone", steps * len(left), "steps") as bar:

        def report(number: int, progress: Progress) -> None:
            bar.update(
                pending[archs[number]] * steps + progress.step,
                f"network {number + 1}/{len(archs)} loss {progress.loss:.3f}",
            )

        def done(number: int) -> None:
            console.detail(f"          network {number + 1}: {alone.known(archs[number]):.4f} alone")

        return audit(supernet, archs, alone, report=report, done=done)


def _facts(job: Job, folder: Path, alone: StandAlone, settings: AuditSettings) -> dict[str, Any]:
    """What the audit's numbers rest on, for its record."""
    return {
        "run": str(folder),
        "supernet": weights_digest(folder),
        "space": job.space.digest,
        "data": job.data.fingerprint,
        "validation": f"{job.data.sizes['validation']} {job.data.unit}",
        "recipe": job.recipe.describe(),
        "alone": alone.recipe.describe(),
        "seed": settings.seed,
    }


def _dry_run(
    job: Job, archs: Sequence[Arch], left: Sequence[Arch], alone: StandAlone, console: Console
) -> Mapping[str, Any]:
    """What the audit will cost, from one timed pass of each network that is to be trained."""
    accumulate = alone.recipe.phases[0].accumulate
    passes = sum(_time_pass(job, arch) for arch in left)
    seconds = passes * alone.steps() * accumulate
    console.say(
        f"          about {seconds / 60:.1f} min by one timed pass each; the supernet's own training was "
        f"{job.recipe.epochs} epochs"
    )
    counted = job.space.costs(job.space.index(archs))
    macs = ", ".join(quantity(float(m)) for m in counted.macs)
    console.say(f"          multiply-adds {macs}")
    return {"networks": [dict(a) for a in archs], "to_train": len(left), "estimated_seconds": seconds}


def _time_pass(job: Job, arch: Arch) -> float:
    """Seconds of a forward and a backward pass over a batch, on the second go."""
    module = job.space.build(arch).to(job.device).train()
    x = job.space.example(arch, min(job.settings.batch_size, job.data.sizes["train"]), job.device)
    taken = 0.0
    for _ in range(2):
        start = time.perf_counter()
        module(x).sum().backward()
        if job.device != "cpu":
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
    return taken


def _flags(settings: AuditSettings) -> str:
    """The settings that decide which trainings there are, where they are not the usual ones."""
    usual = AuditSettings(run=settings.run)
    names = ("networks", "epochs", "seed")
    given = {name: getattr(settings, name) for name in names}
    flags = "".join(f" --{k} {v}" for k, v in given.items() if v != getattr(usual, k))
    return flags + (" --only-trained" if settings.only_trained else "")
