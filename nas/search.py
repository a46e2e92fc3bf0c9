"""`nas search`: supernet -> objectives -> searcher -> study -> front, tested -> a file to deploy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas import objectives as make
from nas.console import Console
from nas.objectives import Limit, Objective
from nas.pick import Pick, parse_pick
from nas.resolve import call, resolve
from nas.result import Result, choose_front, deliver_result
from nas.run_record import read_record, saved_settings, supernet_of
from nas.runs import environment, file_name, new_run, write_record
from nas.search_loop import Known, cheap_violation, check_feasible, search
from nas.searchers.searcher import Problem, Searcher
from nas.settings import SearchSettings, TrainSettings
from nas.study import MetricSpec, Study
from nas.study_storage import locate
from nas.threads import suitable_threads
from nas.train import (
    DECIDING,
    Job,
    calibration,
    check_data,
    dry_run,
    is_trained,
    load_supernet,
    prepare,
    tell,
    train_in,
    weights_digest,
)
from nas.values import short
from predictors import targets
from predictors.target import Target
from search_spaces import Arch, InputError, Population, SearchSpace, did_you_mean
from supernets import Supernet
from supernets.files import clean_temporaries, lock

STUDY, STUDY_FILE = "search", "study.db"
EVALUATION_BATCH = 500  # validation images per forward pass


@dataclass(frozen=True)
class Plan:
    """A search, made from its settings and checked before anything is written or trained."""

    settings: SearchSettings
    job: Job  # of the supernet
    supernet_folder: Path
    target: Target
    pick: Pick

    @property
    def space(self) -> SearchSpace:
        """What is searched."""
        return self.job.space


def plan(settings: SearchSettings, supernet_folder: Path | None = None) -> Plan:
    """The plan of a search. `supernet_folder`: where a resumed search has its supernet.

    Raises:
        InputError: a name or a value that does not fit.
        FileNotFoundError: the data, or the run that `supernet` names, is not there.
    """
    target = targets.find(settings.target or "cpu", settings.target_precision, settings.target_batch or 1)
    pick = parse_pick(settings.pick)
    _check_pick(pick, settings, target)
    resolve("searcher", settings.searcher)
    if settings.storage is not None:
        locate(settings.storage)
    named = settings.supernet
    if named is None:
        job = prepare(settings.training())
        automatic = f"supernet-{file_name(job.data.name)}-{file_name(settings.space)}-{job.digest}"
        folder = supernet_folder or Path(settings.runs) / automatic
    else:
        folder = supernet_folder or Path(named)
        trained = TrainSettings(**{k: given.value for k, given in saved_settings(folder, "train").items()})
        data_dir = settings.data_dir or trained.data_dir
        job = prepare(replace(trained, data_dir=data_dir, device=settings.device))
        if not is_trained(folder):
            raise InputError(f"{folder} is not trained to its end; first: nas train --resume {folder}")
        check_data(folder, job.data)
    return Plan(settings, job, folder, target, pick)


def _check_pick(pick: Pick, settings: SearchSettings, target: Target) -> None:
    known = {*settings.objectives, *make.COUNTED}
    known |= {"latency"} if target.cheap else set()
    known |= {"latency_ms"} if "latency" in known else set()
    for limit in pick.limits:
        if limit.name not in known:
            raise InputError(f"unknown name {limit.name!r} in pick '{pick}'{did_you_mean(limit.name, known)}")


def run(settings: SearchSettings, console: Console) -> Mapping[str, Any]:
    """The command. Returns what `--json` prints."""
    if settings.resume is not None:
        folder = Path(settings.resume)
        made = plan(settings, supernet_of(folder, read_record(folder)))
        check_data(folder, made.job.data)
    else:
        made = plan(settings)
        folder = Path()
    check_feasible(made.space, _limits(made), settings.seed)
    tell(made.job, console)
    _tell_target(made, console)
    for unused in _unused(made):
        console.warn(unused)
    if settings.dry_run:
        return _dry_run(made, console)
    if settings.resume is None:
        aim = f"search-{file_name(made.job.data.name)}-{file_name(made.target.name)}"
        folder = new_run(settings.runs, settings.name, aim)
        write_record(folder, _record(made))
    again = f"nas search --resume {folder}"
    try:
        with lock(folder), suitable_threads(made.space, made.job.settings.batch_size):
            clean_temporaries(folder)
            _keep_settings(folder, made)
            supernet = _supernet(made, console, again)
            objectives, limits = _objectives(made, supernet), _limits(made)
            with _study(made, folder, objectives, limits) as study:
                result = _search(made, supernet, objectives, limits, study, console)
                return deliver_result(result, folder, study, console)
    except KeyboardInterrupt as stop:
        stop.resume_command = again  # type: ignore[attr-defined]
        raise


def _record(made: Plan) -> dict[str, Any]:
    return {
        "what": "search",
        "settings": _settings(made),
        "supernet": str(made.supernet_folder),
        "space": {"name": made.space.name, "settings": made.space.settings, "digest": made.space.digest},
        "target": made.target.describe(),
        "data": made.job.data.describe(),
        **environment(),
    }


def _settings(made: Plan) -> dict[str, Any]:
    """The settings as a resumed run takes them up."""
    return replace(made.settings, resume=None, dry_run=False, open=False).as_dict()


def _keep_settings(folder: Path, made: Plan) -> None:
    """Enters what was changed when the run was resumed; a new pick only once it has picked something."""
    record = read_record(folder)
    record["settings"] = {**_settings(made), "pick": record["settings"]["pick"]}
    write_record(folder, record)


def _unused(made: Plan) -> Iterator[str]:
    """Wishes for a training beside `supernet`, which is trained already in another way."""
    if made.settings.supernet is None:
        return
    asked, trained = made.settings.training().as_dict(), made.job.settings.as_dict()
    usual = TrainSettings().as_dict()
    for name in sorted(DECIDING - {"seed"}):
        if asked[name] not in (usual[name], trained[name]):
            wish, truth = short(asked[name]), short(trained[name])
            yield f"{name} = {wish} is not used: {made.supernet_folder} was trained with {truth}"


def _tell_target(made: Plan, console: Console) -> None:
    target = made.target
    alias = f" ('{target.alias}' is its alias)" if target.alias else ""
    console.say(
        f"[bold]target[/bold]    {target.name}{alias}: {target.title}, {target.runtime} {target.precision}, "
        f"batch {target.batch}"
    )
    console.say(
        f"          latency is {target.provenance.kind}" + (f": {target.caveat}" if target.caveat else "")
    )


def _dry_run(made: Plan, console: Console) -> Mapping[str, Any]:
    settings = made.settings
    training: Mapping[str, Any] = {}
    if is_trained(made.supernet_folder):
        console.say(f"[bold]supernet[/bold]  {made.supernet_folder}, trained")
    else:
        training = dry_run(made.job, console)
    images = len(made.job.data.validation)
    console.say(
        f"[bold]search[/bold]    {settings.searcher}: {settings.evaluations} networks, each on {images:,} "
        f"validation images after batch-norm calibration; objectives {', '.join(settings.objectives)}"
    )
    return {"training": training, "evaluations": settings.evaluations, "target": made.target.describe()}


def _supernet(made: Plan, console: Console, resume_command: str) -> Supernet:
    """The trained supernet: from its folder, or trained there now."""
    folder = made.supernet_folder
    if is_trained(folder):
        console.say(f"[bold]supernet[/bold]  {folder}, trained before")
    else:
        train_in(made.job, folder, console, resume_command)
    return load_supernet(folder, made.job.settings, made.job.data).to(made.job.device)


def _latency(made: Plan) -> Objective:
    return make.latency(made.space, made.target)


def _limits(made: Plan) -> list[Limit]:
    """The limits that the settings set."""
    settings, space = made.settings, made.space
    counts = {name: getattr(settings, f"max_{name}") for name in make.COUNTED}
    limits = [Limit(make.counted(space, name), float(most)) for name, most in counts.items() if most]
    if settings.max_latency_ms is not None:
        limits.insert(0, Limit(_latency(made), settings.max_latency_ms))
    return limits


def _objectives(made: Plan, supernet: Supernet) -> list[Objective]:
    data = made.job.data
    made_of = {
        "accuracy": lambda: make.accuracy(
            supernet,
            data.validation_batches(EVALUATION_BATCH),
            calibration(data),
            len(data.validation),
            made.job.device,
        ),
        "latency": lambda: _latency(made),
    }
    return [
        made_of[name]() if name in made_of else make.counted(made.space, name)
        for name in made.settings.objectives
    ]


def _search(
    made: Plan,
    supernet: Supernet,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    study: Study,
    console: Console,
) -> Result:
    """Runs the search to its end, from the record where there is one."""
    settings, space = made.settings, made.space
    # Numbers that are cheap are shown of every network, whether the search minds them or not.
    named = {o.name for o in objectives}
    extras = [make.counted(space, n) for n in make.COUNTED if n not in named]
    if made.target.cheap and "latency" not in named:
        extras.append(_latency(made))
    problem = Problem(space, len(objectives), cheap_violation(limits), settings.population, settings.seed)
    searcher: Searcher = call(
        "searcher", settings.searcher, resolve("searcher", settings.searcher), {"problem": problem}
    )
    known = _known(space, study, objectives, limits)
    if known:
        console.say(f"          {len(known)} networks are in the record already and are not evaluated again")
    console.say(
        f"[bold]search[/bold]    {settings.searcher}, {settings.evaluations} networks, "
        f"{' against '.join(o.name for o in objectives)}"
        + (f", with {' and '.join(map(str, limits))}" if limits else "")
    )
    with console.progress("searching", settings.evaluations, "networks") as bar:

        def record(
            population: Population,
            values: NDArray[np.float64],
            violations: NDArray[np.float64],
            seconds: float,
        ) -> None:
            shown = {extra.name: extra.evaluate(population) for extra in extras}
            for i, arch in enumerate(space.archs(population)):
                study.record(
                    arch,
                    {o.name: values[i, j] for j, o in enumerate(objectives)},
                    {limit.name: violations[i, j] for j, limit in enumerate(limits)},
                    summary(space, arch),
                    {name: column[i] for name, column in shown.items()},
                    seconds=seconds / len(population),
                )
            bar.update(len(study.done), f"best {_best(study, objectives[0])}")

        outcome = search(
            space,
            searcher,
            objectives,
            limits,
            settings.evaluations,
            known=known,
            record=record,
            clock=time.perf_counter,
        )
    if outcome.exhausted:
        console.say(f"          no further network was found; {len(outcome.values)} were evaluated")
    if outcome.failed:
        console.warn(f"{outcome.failed} evaluations gave no finite number and are left out")
    trials = {trial.arch: trial for trial in study.trials}
    evaluated = [trials[arch] for arch in space.archs(outcome.population)]
    return Result(
        plan_settings=settings,
        job=made.job,
        supernet=supernet,
        target=made.target,
        objectives=objectives,
        extras=extras,
        limits=limits,
        pick=made.pick,
        trials=evaluated,
        front=choose_front(evaluated, objectives, limits),
        supernet_digest=weights_digest(made.supernet_folder),
    )


def _best(study: Study, objective: Objective) -> str:
    feasible = [trial.values[objective.name] for trial in study.trials if trial.feasible]
    if not feasible:
        return "none within the limits"
    best = max(feasible) if objective.direction == "maximize" else min(feasible)
    return f"{objective.name} {best:.4g}"


def _study(made: Plan, folder: Path, objectives: Sequence[Objective], limits: Sequence[Limit]) -> Study:
    """The study of this search: a new one, or the one that a stopped search left.

    Raises:
        InputError: it is damaged, or of another supernet or device.
    """
    settings, record = made.settings, read_record(folder)
    storage = settings.storage or folder / STUDY_FILE
    name = STUDY if settings.storage is None else folder.name
    basis = {
        "supernet": weights_digest(made.supernet_folder),
        "space": made.space.digest,
        "device": made.target.title,
    }
    if record.get("study"):
        return _opened(storage, name, folder, basis)
    if settings.storage is None:
        for rest in folder.glob(f"{STUDY_FILE}*"):  # of a creation that was killed: it holds no trial yet
            if rest.is_file():
                rest.unlink()
    try:
        study = Study.create(
            storage,
            name,
            [MetricSpec(o.name, o.unit, o.direction) for o in objectives],
            [limit.name for limit in limits],
            {
                **basis,
                "target": made.target.describe(),
                "provenance": {o.name: o.provenance.to_dict() for o in objectives},
                "limits": [str(limit) for limit in limits],
            },
            artifacts=folder / "artifacts",
        )
    except InputError:
        if settings.resume is None or settings.storage is None:
            raise
        study = _opened(storage, name, folder, basis)  # killed between these two lines
    write_record(folder, {**record, "study": name})
    return study


def _opened(storage: str | Path, name: str, folder: Path, basis: Mapping[str, str]) -> Study:
    study = Study.open(storage, name, artifacts=folder / "artifacts")
    for key, now in basis.items():
        if study.attrs.get(key) != now:
            study.close()
            raise InputError(
                f"the study of {folder} was made with {key} {study.attrs.get(key)}, not {now}; "
                "start a new search"
            )
    return study


def _known(
    space: SearchSpace, study: Study, objectives: Sequence[Objective], limits: Sequence[Limit]
) -> dict[bytes, Known]:
    """The recorded values, as the search loop looks them up."""
    rows = space.index([trial.arch for trial in study.trials])
    return {
        row.tobytes(): (
            np.array([trial.values[o.name] for o in objectives]),
            np.array([trial.constraints[limit.name] for limit in limits]),
        )
        for row, trial in zip(rows, study.trials, strict=True)
    }


def summary(space: SearchSpace, arch: Arch) -> dict[str, tuple[float, float, float]]:
    """A few numbers that describe an arch: the mean of each kind of numeric choice, with its bounds.

    "stage1.depth" and "stage2.depth" are of kind "depth". {kind: (value, lowest, highest)}
    """
    kinds: dict[str, list[float]] = {}
    bounds: dict[str, list[float]] = {}
    for choice in space.choices:
        if choice.ordinal:
            kind = choice.name.rpartition(".")[2]
            bounds.setdefault(kind, []).extend(float(o) for o in choice.options)
            if choice.name in arch:
                kinds.setdefault(kind, []).append(float(arch[choice.name]))
    return {
        kind: (sum(values) / len(values), min(bounds[kind]), max(bounds[kind]))
        for kind, values in kinds.items()
    }
