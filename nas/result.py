"""What a search found: the front, its test accuracy, the network to hand over, and the files that say so."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.console import Console
from nas.deliver import deliver, stem_of
from nas.front import minimised, nondominated
from nas.objectives import MEASURED, Limit, Objective
from nas.pick import Pick, choose
from nas.report import front_figure, front_table, number, plot, write_csv
from nas.run_record import read_record
from nas.runs import write_record
from nas.search_settings import SearchSettings
from nas.study import Study, Trial
from nas.train_job import Job
from nas.trained import calibration
from predictors.target import Target
from search_spaces import InputError
from supernets import Supernet
from supernets.evaluate import scores
from supernets.files import atomic_write

PLOTS = ("front.png", "front.html")


@dataclass(frozen=True)
class Result:
    """A finished search. `front` are the positions in `trials` of the non-dominated feasible networks."""

    plan_settings: SearchSettings
    job: Job
    supernet: Supernet
    target: Target
    objectives: Sequence[Objective]
    extras: Sequence[Objective]
    limits: Sequence[Limit]
    pick: Pick
    trials: Sequence[Trial]
    front: Sequence[int]
    supernet_digest: str


def directions(objectives: Sequence[Objective]) -> dict[str, Any]:
    """Objective name -> direction, as `nas.front` and `nas.pick` want it."""
    return {o.name: "max" if o.direction == "maximize" else "min" for o in objectives}


def choose_front(
    trials: Sequence[Trial], objectives: Sequence[Objective], limits: Sequence[Limit]
) -> list[int]:
    """Positions of the non-dominated feasible trials, cheapest first.

    Raises:
        InputError: no trial is within the limits; the message gives the best values seen.
    """
    feasible = [i for i, trial in enumerate(trials) if trial.feasible]
    if not feasible:
        best = ", ".join(
            f"{limit.name} {(min(t.constraints[limit.name] for t in trials) + 1) * limit.most:.4g}"
            for limit in limits
            if trials
        )
        raise InputError(
            f"none of {len(trials)} networks is within {' and '.join(map(str, limits))}; "
            f"the least seen: {best}"
        )
    columns = {o.name: [trials[i].values[o.name] for i in feasible] for o in objectives}
    matrix = minimised(columns, directions(objectives))
    on_front = np.flatnonzero(nondominated(matrix))
    last = min(1, len(objectives) - 1)
    return [feasible[i] for i in sorted(on_front, key=lambda i: tuple(np.roll(matrix[i], -last)))]


def deliver_result(result: Result, folder: Path, study: Study, console: Console) -> Mapping[str, Any]:
    """Scores the front on the test images, writes table, plots, record and the chosen network.

    Raises:
        InputError: no network satisfies the pick.
        VerificationError: the exported network differs from the trained one.
    """
    front = [result.trials[i] for i in result.front]
    chosen = _choose(result, front, folder)
    data = result.job.data
    archs = [*(trial.arch for trial in front), result.job.space.largest]
    batches = data.test_batches(data.evaluation_batch)
    found = scores(result.supernet, archs, batches, calibration(data))
    measured = [o.name for o in result.objectives if o.name in MEASURED] or [data.score]
    # One dictionary for each network: "test_accuracy" or "test_perplexity".
    tests = [{f"test_{name}": float(getattr(found, name)[i]) for name in measured} for i in range(len(archs))]
    rows = [_row(result, trial, test) for trial, test in zip(front, tests[:-1], strict=True)]
    numbers = (*result.objectives, *result.extras)
    record = read_record(folder)
    record["settings"]["pick"] = result.plan_settings.pick
    record |= {
        "supernet_sha256": result.supernet_digest,
        "units": {o.name: o.unit for o in numbers},
        "provenance": {o.name: o.provenance.to_dict() for o in numbers},
        "result": {
            "evaluated": len(result.trials),
            "pick": str(result.pick),
            "chosen": front[chosen].number,
            "front": rows,
            "largest": tests[-1],
            "files": {},
        },
    }
    console.say()
    front_table(record, console)
    console.say(
        f"          {len(front)} of {len(result.trials)} networks are on the front; "
        f"* is picked by {result.pick}"
    )
    largest = _tests(tests[-1])
    console.say(
        f"          {' and '.join(largest)} was computed once, on {batches.count:,} {data.unit} that nothing "
        f"else saw; the largest network has {' and '.join(largest.values())}"
    )
    figure = front_figure(record, result.trials, study.metrics)
    write_csv(record, folder / "front.csv")
    for name in PLOTS:
        plot(figure, folder / name)
    if result.plan_settings.export:
        record["result"]["files"] = deliver(
            result.supernet,
            data,
            front[chosen].arch,
            stem_of(folder, result.job.space, front[chosen].arch),
            kind=result.plan_settings.format,
            target=result.target,
            facts=_facts(result, rows[chosen]),
            console=console,
        )
    write_record(folder, record)
    explained = _explain(result, folder, rows[chosen], record["result"]["files"].get("file"))
    atomic_write(folder / "README.txt", explained.encode())
    _put_on_dashboard(study, explained, rows)
    console.say(f"[bold]run[/bold]       {folder}: {', '.join(PLOTS)}, front.csv, run.json, study.db")
    console.next_step(f"nas show {folder}   or: nas dashboard {folder}")
    if result.plan_settings.open:
        webbrowser.open((folder / PLOTS[1]).absolute().as_uri())
    return {"run": str(folder), **record["result"]}


def _put_on_dashboard(study: Study, explained: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The summary as the study's note, and a note for each network of the front."""
    study.note(explained)
    for row in rows:
        lines = [
            f"On the front; {_tests_line(row)}.",
            "",
            "| choice | option |",
            "|---|---|",
        ]
        lines += [f"| {name} | {option} |" for name, option in row["arch"].items()]
        study.note_trial(row["id"], "\n".join(lines))


def _choose(result: Result, front: Sequence[Trial], folder: Path) -> int:
    names = [o.name for o in (*result.objectives, *result.extras)]
    columns = {name: [number(trial, name) for trial in front] for name in names}
    if "latency" in columns:
        columns["latency_ms"] = columns["latency"]
    try:
        return choose(result.pick, columns, directions(result.objectives))
    except InputError as error:
        raise InputError(f"{error}; pick another: nas search --resume {folder} --pick RULE") from None


def _tests(row: Mapping[str, Any]) -> dict[str, str]:
    """The numbers on test data in a row: {"test accuracy": "0.9712"}."""
    return {k.replace("_", " "): f"{v:.4f}" for k, v in row.items() if k.startswith("test_")}


def _tests_line(row: Mapping[str, Any]) -> str:
    """The same in a line: "test accuracy 0.9712"."""
    return ", ".join(f"{name} {value}" for name, value in _tests(row).items())


def _row(result: Result, trial: Trial, test: Mapping[str, float]) -> dict[str, Any]:
    numbers = {o.name: number(trial, o.name) for o in (*result.objectives, *result.extras)}
    return {"id": trial.number, **numbers, **test, "arch": dict(trial.arch)}


def _facts(result: Result, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the exported file says of the network."""
    numbers = {k: v for k, v in row.items() if k not in ("id", "arch")}
    return {
        "numbers": numbers,
        "provenance": {o.name: o.provenance.to_dict() for o in (*result.objectives, *result.extras)},
        "supernet_sha256": result.supernet_digest,
    }


def _explain(result: Result, folder: Path, row: Mapping[str, Any], file: str | None) -> str:
    """README.txt: what lies in the folder and how it came to be."""
    objectives = "\n".join(f"  {o.name}: {o.direction}, {o.provenance}" for o in result.objectives)
    limits = ", ".join(map(str, result.limits)) or "none"
    picked = (
        f"{Path(file).name}\n             the picked network; its properties say how to feed it\n"
        if file
        else ""
    )
    return f"""A search of {result.job.space.name} on {result.job.data.name} for {result.target.title}.

Objectives:
{objectives}
Limits: {limits}
Picked by {result.pick}: network {row["id"]}, {_tests_line(row)}.

run.json     settings, data, versions, the front and what was picked; nas search --resume {folder}
study.db     every evaluated network, an Optuna study; nas dashboard {folder}
front.csv    the networks that no other one beats, with their {" and ".join(_tests(row))}
front.png    all candidates and the front; front.html the same to point at
{picked}"""
