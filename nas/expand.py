"""`nas expand`: a learngene -> ordinary networks of any depth, fine-tuned where asked, scored, and as files.

A descendant is a run of its own, as if by `nas train --init RUN --recipe finetune` with one depth: `nas
export`, `nas show` and `nas train --resume` take it as any other.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.config import options
from nas.console import Console, quantity
from nas.data import Data
from nas.deliver import deliver, stem_of
from nas.expand_settings import ExpandSettings
from nas.initial import DEPTHS, Trained, at_depth, open_trained
from nas.run_record import read_record
from nas.runs import write_record
from nas.threads import suitable_threads
from nas.train import begin, start_record, train_in
from nas.train_job import Job, prepare
from nas.train_plan import tell
from nas.train_settings import TrainSettings
from nas.trained import calibration, check_data, is_trained, load_supernet, settings_of, weights_digest
from search_spaces import InputError
from supernets import Supernet
from supernets.checkpoint import save_tensors
from supernets.evaluate import scores
from supernets.files import lock
from supernets.resume import WEIGHTS
from supernets.schemes import LayeredScheme
from supernets.storage import Storage, storage

RECIPE = "finetune"


def run(settings: ExpandSettings, console: Console) -> Mapping[str, Any]:
    """The command. Returns what `--json` prints."""
    folder = Path(settings.run)
    trained = open_trained(folder)
    if not isinstance(trained.supernet.scheme, LayeredScheme):
        raise InputError(
            f"{folder} shares by {trained.name!r}, which has the layers that were trained and no others; "
            "train one that can be expanded with --recipe sws or --recipe tleg"
        )
    made = {depth: at_depth(trained, depth).space for depth in settings.depth}
    saved = storage(trained.supernet, made)
    jobs = {depth: prepare(_settings(settings, folder, depth)) for depth in settings.depth}
    places = {depth: _place(settings, folder, depth) for depth in settings.depth}
    for depth, job in jobs.items():
        _check_free(places[depth], job)
    tell(jobs[settings.depth[0]], console)
    found = [
        _descendant(settings, trained, jobs[depth], places[depth], depth, saved, console)
        for depth in settings.depth
    ]
    _tell_storage(saved, console)
    console.next_step(f"nas export {places[settings.depth[-1]]} --arch largest")
    return {"networks": found, "storage": _storage_record(saved)}


def _settings(settings: ExpandSettings, folder: Path, depth: int) -> TrainSettings:
    """The training that fine-tunes the descendant of a run."""
    base = settings_of(folder)
    same = settings.data is None
    return TrainSettings(
        space=base.space,
        space_settings={**base.space_settings, DEPTHS: [depth]},
        scheme="slice",
        recipe=RECIPE,
        init=str(folder),
        data=base.data if settings.data is None else settings.data,
        data_dir=settings.data_dir or (base.data_dir if same else None),
        image_size=base.image_size if same else settings.image_size,
        context=base.context,
        epochs=settings.epochs or None,
        lr=settings.lr,
        batch_size=settings.batch_size or base.batch_size,
        seed=settings.seed,
        device=settings.device,
        precision=base.precision,
        checkpoint_minutes=settings.checkpoint_minutes,
    )


def _place(settings: ExpandSettings, folder: Path, depth: int) -> Path:
    """The run folder of a descendant."""
    if settings.output is None:
        return folder.absolute().parent / f"{folder.absolute().name}-depth-{depth}"
    return Path(settings.output) / f"depth-{depth}" if len(settings.depth) > 1 else Path(settings.output)


def _check_free(place: Path, job: Job) -> None:
    """Returns when the folder is free, or holds what an interruption left of the same expansion."""
    if not (place / "run.json").exists():
        return
    record = read_record(place)
    if record.get("digest") != job.digest or "expanded" in record:
        raise InputError(f"run {place} exists; give another --output")
    check_data(place, job.data)


def _descendant(
    settings: ExpandSettings,
    trained: Trained,
    job: Job,
    place: Path,
    depth: int,
    saved: Storage,
    console: Console,
) -> dict[str, Any]:
    """One network: made, trained if asked, scored and written."""
    if settings.epochs:
        with suitable_threads(job.space, job.settings.batch_size):
            train_in(job, place, console, _again(settings))
    else:
        _write(job, place)
    supernet = load_supernet(place, job.settings, job.data)
    scored = _scores(supernet, job.data)
    record = read_record(place)
    arch = supernet.space.largest
    files = deliver(
        supernet,
        job.data,
        arch,
        stem_of(place, supernet.space, arch),
        kind="safetensors",
        target=None,
        facts={"numbers": scored, "expanded": {"from": trained.name, "depth": depth}},
        console=console,
    )
    result = {**record.get("result", {}), **scored, "files": files}
    result.setdefault("weights", {"file": WEIGHTS, "sha256": weights_digest(place)})
    asked = {"run": settings.run, "depth": depth, "epochs": settings.epochs}
    write_record(place, {**record, "expanded": asked, "storage": _storage_record(saved), "result": result})
    words = ", ".join(f"{name.replace('_', ' ')} {_shown(name, value)}" for name, value in scored.items())
    console.say(f"[bold]depth {depth:<4}[/bold]{quantity(float(saved.networks[depth]))} parameters; {words}")
    return {"depth": depth, "run": str(place), **scored, **files}


def _write(job: Job, place: Path) -> None:
    """The run folder of a descendant that is not trained."""
    if is_trained(place):
        return
    begun = begin(job)
    start_record(job, place, begun.init)
    with lock(place):
        meta = {"steps": 0, "space": job.space.digest, "seed": job.settings.seed}
        save_tensors(place / WEIGHTS, begun.supernet.shared_state(), meta)


def _scores(supernet: Supernet, data: Data) -> dict[str, float]:
    """What the network scores on the validation and the test split."""
    found: dict[str, float] = {}
    inputs = calibration(data)
    for part, batches in (
        ("validation", data.validation_batches(data.evaluation_batch)),
        ("test", data.test_batches(data.evaluation_batch)),
    ):
        scored = scores(supernet, [supernet.space.largest], batches, inputs)
        found[f"{part}_accuracy"] = float(scored.accuracy[0])
        if data.kind == "text":
            found[f"{part}_perplexity"] = float(scored.perplexity[0])
    return found


def _shown(name: str, value: float) -> str:
    return f"{value:.1%}" if name.endswith("accuracy") else f"{value:.3f}"


def _storage_record(saved: Storage) -> dict[str, Any]:
    networks = {str(depth): count for depth, count in saved.networks.items()}
    return {"learngene": saved.learngene, "networks": networks, "total": saved.total, "ratio": saved.ratio}


def _tell_storage(saved: Storage, console: Console) -> None:
    depths = ", ".join(map(str, saved.networks))
    console.say(
        f"[bold]storage[/bold]   {quantity(float(saved.learngene))} parameters in the learngene, "
        f"{quantity(float(saved.total))} in the full model{'s' if len(saved.networks) > 1 else ''} of depth "
        f"{depths}: {saved.ratio:.2f} x"
    )


def _again(settings: ExpandSettings) -> str:
    """The command that goes on where this one was interrupted: the same."""
    words = ["nas", "expand", settings.run]
    for option in options(ExpandSettings):
        value = getattr(settings, option.name)
        if not option.setting.argument and value != option.default:
            words += [option.flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)
