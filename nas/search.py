"""`nas search`: supernet -> objectives -> searcher -> study -> front, tested -> a file to deploy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas import objectives as make
from nas.console import Console
from nas.objectives import Limit, Objective
from nas.resolve import call, resolve
from nas.result import Result, choose_front, deliver_result
from nas.run_record import read_record, supernet_of
from nas.runs import environment, file_name, new_run, write_record
from nas.search_loop import cheap_violation, check_feasible, search
from nas.search_plan import Plan, latency, limits_of, objectives_of, plan
from nas.search_settings import SearchSettings
from nas.search_study import known_values, study_of, summary
from nas.searchers.searcher import Problem, Searcher
from nas.study import Study
from nas.threads import suitable_threads
from nas.train import train_in
from nas.train_job import DECIDING
from nas.train_plan import dry_run, tell
from nas.train_settings import TrainSettings
from nas.trained import check_data, is_trained, load_supernet, weights_digest
from nas.values import short
from search_spaces import Population
from supernets import Supernet
from supernets.files import clean_temporaries, lock


def run(settings: SearchSettings, console: Console) -> Mapping[str, Any]:
    """The command. Returns what `--json` prints."""
    if settings.resume is not None:
        folder = Path(settings.resume)
        made = plan(settings, supernet_of(folder, read_record(folder)))
        check_data(folder, made.job.data)
    else:
        made = plan(settings)
        folder = Path()
    check_feasible(made.space, limits_of(made), settings.seed)
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
            objectives, limits = objectives_of(made, supernet), limits_of(made)
            with study_of(made, folder, objectives, limits) as study:
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
    caveat = f": {target.caveat}" if target.caveat else ""
    console.say(f"          latency is {target.provenance.kind}{caveat}")


def _dry_run(made: Plan, console: Console) -> Mapping[str, Any]:
    settings = made.settings
    training: Mapping[str, Any] = {}
    if is_trained(made.supernet_folder):
        console.say(f"[bold]supernet[/bold]  {made.supernet_folder}, trained")
    else:
        training = dry_run(made.job, console)
    data = made.job.data
    labels = data.validation_batches(data.evaluation_batch).count
    console.say(
        f"[bold]search[/bold]    {settings.searcher}: {settings.evaluations} networks, each on {labels:,} "
        f"validation {data.unit} after calibration of any batch norm; "
        f"objectives {', '.join(settings.objectives or ())}"
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
        extras.append(latency(made))
    problem = Problem(
        space,
        len(objectives),
        cheap_violation(limits),
        settings.population,
        settings.seed,
        bool(limits),
        made.job.recipe.listed(space),
    )
    searcher: Searcher = call(
        "searcher", settings.searcher, resolve("searcher", settings.searcher), {"problem": problem}
    )
    known = known_values(space, study, objectives, limits)
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
