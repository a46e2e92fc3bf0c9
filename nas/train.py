"""`nas train`: settings -> data, space, scheme, recipe -> a run folder with a trained supernet."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.markup import escape

from nas.console import Console, quantity
from nas.initial import begin_with
from nas.run_record import read_record
from nas.runs import begun_by, environment, file_name, new_run, write_record
from nas.threads import suitable_threads
from nas.train_job import Job, pick_device, prepare
from nas.train_plan import dry_run, space_record, tell
from nas.train_settings import TrainSettings
from nas.trained import check_data, make_scheme, score_extremes, score_words, weights_digest
from search_spaces import InputError
from supernets import Supernet
from supernets.distributed import ALONE, Ranks, joined, launch, launched, restart_advice, restarted
from supernets.precision import Precision
from supernets.resume import CHECKPOINT, WEIGHTS
from supernets.schemes import LayeredScheme
from supernets.trainer import LOG, Progress, train


def run(settings: TrainSettings, console: Console) -> Mapping[str, Any] | None:
    """The command, in every process that torchrun started. The first returns what `--json` prints."""
    with joined(pick_device(settings.device)) as ranks:
        if not ranks.first:
            console = Console.silent()
        elif advice := restart_advice():
            console.warn(advice)
        return _run(settings, console, ranks)


def _run(settings: TrainSettings, console: Console, ranks: Ranks) -> Mapping[str, Any] | None:
    job = prepare(settings)
    tell(job, console)
    if settings.dry_run:
        return dry_run(job, console) if ranks.first else None
    begun = begin(job) if settings.init is not None and settings.resume is None else None
    folder = ranks.from_first(lambda: _folder(job))
    with suitable_threads(job.space, -(-settings.batch_size // ranks.size)):
        result = train_in(job, folder, console, f"{_command()} --resume {folder}", ranks, begun)
    if result is not None:
        learngene = isinstance(make_scheme(job.settings), LayeredScheme)
        search = f"nas search --supernet {folder} --target jetson"
        console.next_step(f"nas expand {folder} --depth N" if learngene else search)
    return result


def _folder(job: Job) -> Path:
    """Where the run goes: the one to resume, the one that ranks had begun before a restart, or a new one."""
    settings = job.settings
    if settings.resume is not None:
        return Path(settings.resume)
    if restarted() and (begun := begun_by(settings.runs, launch())) is not None:
        return begun
    automatic = f"train-{file_name(job.data.name)}-{file_name(settings.space)}"
    return new_run(settings.runs, settings.name, automatic)


def _command() -> str:
    """How `nas train` was started."""
    return f"torchrun --nproc-per-node {launched()} -m nas train" if launched() > 1 else "nas train"


@dataclass(frozen=True)
class Begun:
    """A supernet with its first values, and where they come from, for the record; None: from the seed."""

    supernet: Supernet
    init: Mapping[str, Any] | None


def begin(job: Job) -> Begun:
    """A supernet with the first values of a training.

    Raises:
        InputError: the weights that it shall begin with do not fit, or cannot be read.
        OSError: they are not there, or could not be fetched.
    """
    supernet = job.supernet()
    if job.settings.init is None:
        return Begun(supernet, None)
    return Begun(supernet, begin_with(supernet, job.settings.init, job.data))


def train_in(
    job: Job,
    folder: Path,
    console: Console,
    resume_command: str,
    ranks: Ranks = ALONE,
    begun: Begun | None = None,
) -> Mapping[str, Any] | None:
    """Trains in `folder`, from a checkpoint there if there is one, and scores the two extremes.

    Of several ranks the first scores, writes the record and returns it; the others return None.

    Raises:
        InputError: the weights to begin with do not fit.
        KeyboardInterrupt: with `resume_command` for the command line.
    """
    if begun is None:  # a checkpoint holds all that the first values have led to
        begun = Begun(job.supernet(), None) if (folder / CHECKPOINT).exists() else begin(job)
    supernet, init = begun.supernet, begun.init
    record = ranks.from_first(lambda: start_record(job, folder, init, ranks))
    if init is not None:
        console.say(f"[bold]init[/bold]      {escape(init['summary'])}")
    phases = "; ".join(f"{p.name} {p.epochs} epochs" for p in job.recipe.phases)
    weights = float(sum(p.numel() for p in supernet.parameters()))
    where = job.device if ranks.size == 1 else f"{ranks.size} x {torch.device(job.device).type}"
    console.say(
        f"[bold]train[/bold]     {quantity(weights)} shared weights, {phases}, on {where} -> {folder}"
    )
    start = time.monotonic()
    try:
        with console.progress("training", job.recipe.steps(job.batches().steps), "steps") as bar:

            def report(progress: Progress) -> None:
                bar.update(
                    progress.step,
                    f"epoch {progress.epoch}/{progress.epochs} loss {progress.loss:.3f} "
                    f"top-1 {progress.accuracy:.3f} {progress.images_per_s:,.0f} {job.data.unit}/s",
                )

            train(
                supernet,
                job.recipe,
                job.batches(),
                folder=folder,
                seed=job.settings.seed,
                device=job.device,
                precision=cast(Precision, job.settings.precision),
                checkpoint_minutes=job.settings.checkpoint_minutes,
                teacher=job.teacher.to(job.device) if job.teacher else None,
                report=report if ranks.first else None,
                ranks=ranks,
                vary_archs=job.settings.vary_archs,
                compile_largest=job.settings.compile == "largest",
            )
        if not ranks.first:
            return None
        scored = score_extremes(supernet, job.data)
    except KeyboardInterrupt as stop:
        stop.resume_command = resume_command  # type: ignore[attr-defined]
        raise
    # The log counts what was done before a kill, too.
    log = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    if skipped := sum(line["skipped"] for line in log):
        console.warn(
            f"{skipped} steps were skipped: their loss or gradient was not finite; a lower lr may help"
        )
    record["result"] = {
        **scored,
        "seconds": round(sum(line["seconds"] for line in log), 1),
        "skipped_steps": skipped,
        "weights": {"file": WEIGHTS, "sha256": weights_digest(folder)},
    }
    write_record(folder, record)
    console.say(f"          {score_words(job.data, scored)}; {time.monotonic() - start:.0f} s")
    return {"run": str(folder), **record["result"]}


def start_record(
    job: Job, folder: Path, init: Mapping[str, Any] | None, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """The record of the run in `folder`, written if there is none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "run.json").exists():
        check_data(folder, job.data)
        known = read_record(folder)
        if job.teacher is not None and known.get("teacher") != job.teacher.record:
            raise InputError(
                f"teacher {job.settings.teacher!r} is not what {folder} began with; start a new run"
            )
        return known
    record: dict[str, Any] = {
        "what": "train",
        "settings": job.settings.as_dict(),
        "space": space_record(job.space),
        "recipe": job.recipe.describe(),
        "data": job.data.describe(),
        "digest": job.digest,
        "init": init,
        **environment(),
    }
    if job.teacher is not None:
        record["teacher"] = job.teacher.record
    if ranks.size > 1:
        record |= {"ranks": ranks.size, "launch": launch()}
    write_record(folder, record)
    return record
