"""What a search will do, made from its settings and checked before anything is written or trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nas import objectives as make
from nas.objectives import Limit, Objective
from nas.pick import Pick, parse_pick
from nas.resolve import resolve
from nas.runs import file_name
from nas.search_settings import SearchSettings
from nas.study_storage import locate
from nas.train_job import Job, prepare
from nas.trained import calibration, check_data, is_trained, settings_of
from predictors import targets
from predictors.target import Target
from search_spaces import InputError, SearchSpace, did_you_mean
from supernets import Supernet


@dataclass(frozen=True)
class Plan:
    """A search: its settings, and what they name."""

    settings: SearchSettings  # with the objectives that are meant
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
        trained = settings_of(folder)
        data_dir = settings.data_dir or trained.data_dir
        job = prepare(replace(trained, data_dir=data_dir, device=settings.device))
        if not is_trained(folder):
            raise InputError(f"{folder} is not trained to its end; first: nas train --resume {folder}")
        check_data(folder, job.data)
    objectives = settings.objectives or make.default_objectives(job.data)
    if "perplexity" in objectives and job.data.kind != "text":
        raise InputError(
            f"objective 'perplexity' is for text, but {job.data.name} holds images; use accuracy"
        )
    settings = replace(settings, objectives=objectives)
    _check_pick(pick, settings, target)
    return Plan(settings, job, folder, target, pick)


def _check_pick(pick: Pick, settings: SearchSettings, target: Target) -> None:
    known = {*(settings.objectives or ()), *make.COUNTED}
    known |= {"latency"} if target.cheap else set()
    known |= {"latency_ms"} if "latency" in known else set()
    for limit in pick.limits:
        if limit.name not in known:
            raise InputError(f"unknown name {limit.name!r} in pick '{pick}'{did_you_mean(limit.name, known)}")


def latency(made: Plan) -> Objective:
    """The latency on the target of the plan."""
    return make.latency(made.space, made.target)


def limits_of(made: Plan) -> list[Limit]:
    """The limits that the settings set."""
    settings, space = made.settings, made.space
    counts = {name: getattr(settings, f"max_{name}") for name in make.COUNTED}
    limits = [Limit(make.counted(space, name), float(most)) for name, most in counts.items() if most]
    if settings.max_latency_ms is not None:
        limits.insert(0, Limit(latency(made), settings.max_latency_ms))
    return limits


def objectives_of(made: Plan, supernet: Supernet) -> list[Objective]:
    """What the settings trade against each other."""
    data, device = made.job.data, made.job.device
    batches = data.validation_batches(data.evaluation_batch)
    run = make.one_pass(supernet, batches, calibration(data))
    labels = f"{batches.count} validation {data.unit}"
    made_of = {
        "accuracy": lambda: make.accuracy(run, labels, device),
        "perplexity": lambda: make.perplexity(run, labels, device),
        "latency": lambda: latency(made),
    }
    return [
        made_of[name]() if name in made_of else make.counted(made.space, name)
        for name in made.settings.objectives or ()
    ]
