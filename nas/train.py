"""`nas train`: settings -> data, space, scheme, recipe -> a run folder with a trained supernet."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from rich.markup import escape

from nas.config import options
from nas.console import Console, quantity
from nas.data import Data, load_data
from nas.data.batches import TrainBatches
from nas.resolve import call, resolve
from nas.run_record import read_record, saved_settings
from nas.runs import begun_by, environment, file_name, new_run, write_record
from nas.spaces import make_space
from nas.teacher import ExternalTeacher, open_teacher
from nas.threads import suitable_threads
from nas.train_settings import TrainSettings
from search_spaces import Arch, InputError, SearchSpace
from supernets import Supernet
from supernets.checkpoint import load_tensors, sidecar
from supernets.distributed import (
    ALONE,
    Ranks,
    joined,
    launch,
    launched,
    local_device,
    restart_advice,
    restarted,
)
from supernets.evaluate import scores
from supernets.phases import check_recipe
from supernets.precision import Precision
from supernets.recipe import Recipe
from supernets.resume import CHECKPOINT
from supernets.schemes import Scheme
from supernets.trainer import LOG, Progress, train

WEIGHTS = "supernet.safetensors"
SPLIT_SEED = 0  # one split for all seeds of training and search, so that their numbers compare
DECIDING = {option.name for option in options(TrainSettings) if not option.setting.portable} - {"name"}
"""The settings that decide what a training gives."""


@dataclass(frozen=True)
class Job:
    """What a training needs, made from its settings and checked before anything is written."""

    settings: TrainSettings
    data: Data
    space: SearchSpace
    recipe: Recipe
    device: str
    teacher: ExternalTeacher | None = None

    @property
    def digest(self) -> str:
        """Names what decides the weights: equal digests train equal supernets."""
        settings = {k: v for k, v in self.settings.as_dict().items() if k in DECIDING}
        described = [settings, self.space.digest, self.recipe.describe(), self.data.fingerprint]
        if self.teacher is not None:
            described.append(self.teacher.record)
        return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:8]

    def supernet(self) -> Supernet:
        """A fresh supernet."""
        return make_supernet(self.space, self.settings)

    def batches(self) -> Any:
        """The training batches, changed on the GPU where there is one and the pixels are in memory."""
        batches = self.data.train_batches(self.settings.batch_size, self.settings.seed)
        if self.device == "cpu" or not isinstance(batches, TrainBatches) or not batches.store.in_memory:
            return batches
        return replace(batches, device=torch.device(self.device))


def prepare(settings: TrainSettings) -> Job:
    """Data, space and recipe of the settings.

    Raises:
        InputError: a name or a value that does not fit, before anything is written.
        FileNotFoundError: the data is not there.
    """
    data = open_data(settings)
    space = make_space(settings.space, settings.space_settings, data)
    given = dict(settings.recipe_settings)
    for name in ("epochs", "lr"):
        if (value := getattr(settings, name)) is not None:
            given[name] = value
    factory = resolve("recipe", settings.recipe)
    if settings.teacher is not None and "teacher" in inspect.signature(factory).parameters:
        given.setdefault("teacher", "given")
    recipe = call("recipe", settings.recipe, factory, given)
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe {settings.recipe!r} made a {type(recipe).__name__}, not a Recipe")
    settings = replace(settings, scheme=settings.scheme or recipe.scheme)  # so that run.json records it
    make_scheme(settings)
    check_recipe(recipe, space)
    teacher = _teacher(settings, recipe, data)
    return Job(settings, data, space, recipe.fitted(space), pick_device(settings.device), teacher)


def _teacher(settings: TrainSettings, recipe: Recipe, data: Data) -> ExternalTeacher | None:
    """The teacher of the settings, where the recipe asks for one; a slip is said before anything is read."""
    asks = any(phase.teacher == "given" for phase in recipe.phases)
    if settings.teacher is None:
        if asks:
            raise InputError(
                f"recipe {settings.recipe!r} needs a teacher: --teacher RUN, timm:NAME or timm:NAME@FILE"
            )
        return None
    if not asks:
        raise InputError(
            f"recipe {settings.recipe!r} learns from no --teacher; uniform and progressive_shrinking can"
        )
    return open_teacher(settings.teacher, data, settings.teacher_size)


def settings_of(folder: Path) -> TrainSettings:
    """The settings of the training in `folder`.

    Raises:
        ConfigError: a run of another command, or a damaged record.
        FileNotFoundError: there is no such run.
    """
    return TrainSettings(**{k: given.value for k, given in saved_settings(folder, "train").items()})


def open_data(settings: TrainSettings) -> Data:
    """The data that the settings name, split as always."""
    return load_data(
        settings.data,
        image_size=settings.image_size,
        context=settings.context,
        data_dir=settings.data_dir,
        seed=SPLIT_SEED,
        download=settings.download,
    )


def check_data(folder: Path, data: Data) -> None:
    """Returns when `data` is what the run in `folder` was started with.

    Raises:
        InputError: files were added, removed or changed, so that another split would mix test images in.
    """
    if read_record(folder)["data"]["fingerprint"] != data.fingerprint:
        raise InputError(f"{data.source} is not the data that {folder} began with; start a new run")


def make_supernet(space: SearchSpace, settings: TrainSettings) -> Supernet:
    """A fresh supernet of the space, sharing as the settings say."""
    return Supernet(space, make_scheme(settings), seed=settings.seed)


def make_scheme(settings: TrainSettings) -> Scheme:
    """The sharing scheme that the settings name.

    Raises:
        InputError: an unknown scheme, or a keyword or value that it does not take.
    """
    name = settings.scheme or Recipe.scheme
    scheme = call("scheme", name, resolve("scheme", name), settings.scheme_settings)
    if not isinstance(scheme, Scheme):
        raise InputError(f"scheme {name!r} made a {type(scheme).__name__}, not a Scheme")
    return scheme


def pick_device(name: str) -> str:
    """`auto` as the device it stands for; others checked. Of several ranks each has a GPU of its own."""
    if name == "auto":
        return local_device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} needs an NVIDIA GPU that torch can see; use --device cpu")
    return local_device(name)


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
        console.next_step(f"nas search --supernet {folder} --target jetson")
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
        "space": _space_record(job.space),
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
    from nas.initial import begin_with

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
    console.say(f"          {_score_words(job.data, scored)}; {time.monotonic() - start:.0f} s")
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
        "space": _space_record(job.space),
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


def score_extremes(supernet: Supernet, data: Data) -> dict[str, dict[str, float]]:
    """What the largest and the smallest subnet score on the validation split, by the name of the measure."""
    ends: list[Arch] = [supernet.space.largest, supernet.space.smallest]
    batches = data.validation_batches(data.evaluation_batch)
    found = scores(supernet, ends, batches, calibration(data))
    measures = {"validation_accuracy": found.accuracy}
    if data.kind == "text":
        measures |= {"validation_perplexity": found.perplexity, "validation_bits_per_byte": found.bits}
    return {
        name: {"largest": float(largest), "smallest": float(smallest)}
        for name, (largest, smallest) in measures.items()
    }


def _score_words(data: Data, scored: Mapping[str, Mapping[str, float]]) -> str:
    """The two extremes by the measure of the data's kind."""
    if data.score == "accuracy":
        ends = {name: f"{value:.1%}" for name, value in scored["validation_accuracy"].items()}
    else:
        bits = scored["validation_bits_per_byte"]
        ends = {
            name: f"{value:.3f} ({bits[name]:.3f} bits per byte)"
            for name, value in scored["validation_perplexity"].items()
        }
    return f"validation {data.score}: largest {ends['largest']}, smallest {ends['smallest']}"


def calibration(data: Data) -> list[torch.Tensor]:
    """The fixed inputs on which batch-norm statistics are measured."""
    return [x for x, _ in data.calibration_batches()]


def is_trained(folder: Path) -> bool:
    """Whether the folder holds a finished supernet."""
    return (folder / WEIGHTS).is_file() and sidecar(folder / WEIGHTS).is_file()


def weights_digest(folder: Path) -> str:
    """The SHA-256 of the supernet's weights, as recorded beside them."""
    return str(json.loads(sidecar(folder / WEIGHTS).read_text())["sha256"])


def load_supernet(folder: Path, settings: TrainSettings, data: Data) -> Supernet:
    """The trained supernet of a run folder, in eval mode.

    Raises:
        InputError: the weights are damaged or do not fit the settings.
    """
    return load_weights(folder, settings, make_space(settings.space, settings.space_settings, data))


def load_weights(folder: Path, settings: TrainSettings, space: SearchSpace) -> Supernet:
    """The trained supernet of a run folder over its space, in eval mode.

    Raises:
        InputError: the weights are damaged or do not fit the space.
    """
    supernet = make_supernet(space, settings)
    tensors, _ = load_tensors(folder / WEIGHTS)
    try:
        supernet.load_shared_state(tensors)
    except InputError as error:
        raise InputError(f"{folder / WEIGHTS}: {error}") from None
    return supernet.eval()


def _space_record(space: SearchSpace) -> dict[str, Any]:
    return {"name": space.name, "settings": space.settings, "digest": space.digest, "size": str(space.size)}
