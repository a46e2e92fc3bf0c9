"""What a search found: the front, its test accuracy, the network to hand over, and the files that say so."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.console import Console, quantity
from nas.deliver import deliver
from nas.front import minimised, nondominated
from nas.front_page import interactive_front
from nas.front_plot import Axis, FrontPlot, Point
from nas.objectives import Limit, Objective
from nas.pick import Pick, choose
from nas.plots import plot_front
from nas.run_record import read_record
from nas.runs import write_record
from nas.settings import SearchSettings
from nas.study import Trial
from nas.train import Job, calibration
from predictors.target import Target
from search_spaces import Arch, InputError
from supernets import Supernet
from supernets.evaluate import evaluate
from supernets.files import atomic_write

TEST = "test accuracy"


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

    def value(self, trial: Trial, name: str) -> float:
        """An objective, or an extra number, of a trial."""
        return float(trial.values[name] if name in trial.values else trial.attrs[name])


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
            f"none of {len(trials)} networks is within {' and '.join(map(str, limits))}; the least seen: {best}"
        )
    columns = {o.name: [trials[i].values[o.name] for i in feasible] for o in objectives}
    matrix = minimised(columns, directions(objectives))
    on_front = np.flatnonzero(nondominated(matrix))
    last = min(1, len(objectives) - 1)
    return [feasible[i] for i in sorted(on_front, key=lambda i: tuple(np.roll(matrix[i], -last)))]


def deliver_result(result: Result, folder: Path, console: Console) -> Mapping[str, Any]:
    """Scores the front on the test images, writes table, plots, record and the chosen network.

    Raises:
        InputError: no network satisfies the pick.
        VerificationError: the exported network differs from the trained one.
    """
    front = [result.trials[i] for i in result.front]
    chosen = _choose(result, front)
    archs = [trial.arch for trial in front]
    data = result.job.data
    test = evaluate(result.supernet, archs, data.test_batches(500), calibration(data))
    rows = [_row(result, trial, float(score)) for trial, score in zip(front, test, strict=True)]
    rule = str(result.pick)
    console.say()
    _table(result, rows, chosen, console)
    console.say(
        f"          {len(front)} of {len(result.trials)} networks are on the front; the marked one is picked by "
        f"{rule}; test accuracy was computed once, on {len(data.test):,} images that nothing else saw"
    )
    _write_csv(folder / "front.csv", result, rows)
    figure = _figure(result, front, chosen, [float(score) for score in test])
    plot_front(figure, folder / "front.png")
    interactive_front(figure, folder / "front.html")
    record = read_record(folder)
    record["supernet_sha256"] = result.supernet_digest
    record["provenance"] = {o.name: o.provenance.to_dict() for o in (*result.objectives, *result.extras)}
    record["result"] = {
        "evaluated": len(result.trials),
        "pick": rule,
        "chosen": front[chosen].number,
        "front": rows,
        "files": {},
    }
    if result.plan_settings.export:
        files = deliver(
            result.supernet,
            data,
            front[chosen].arch,
            folder / f"{result.job.space.name.rpartition(':')[2]}-{front[chosen].arch.digest}",
            kind=result.plan_settings.format,
            target=result.target,
            facts=_facts(result, rows[chosen]),
            console=console,
        )
        record["result"]["files"] = files
    write_record(folder, record)
    atomic_write(folder / "README.txt", _explain(result, folder, rows[chosen]).encode())
    console.say(f"[bold]run[/bold]       {folder}: front.png, front.html, front.csv, run.json, study.db")
    console.next_step(f"nas show {folder}   or: nas dashboard {folder}")
    return {"run": str(folder), **record["result"]}


def _choose(result: Result, front: Sequence[Trial]) -> int:
    names = [o.name for o in (*result.objectives, *result.extras)]
    columns = {name: [result.value(trial, name) for trial in front] for name in names}
    if "latency" in columns:
        columns["latency_ms"] = columns["latency"]
    return choose(result.pick, columns, directions(result.objectives))


def _row(result: Result, trial: Trial, test: float) -> dict[str, Any]:
    numbers = {o.name: result.value(trial, o.name) for o in (*result.objectives, *result.extras)}
    return {"id": trial.number, **numbers, "test_accuracy": test, "arch": dict(trial.arch)}


def _table(result: Result, rows: Sequence[Mapping[str, Any]], chosen: int, console: Console) -> None:
    shown = [o for o in (*result.objectives, *result.extras) if o.name != "memory" or o in result.objectives]
    heads = [f"{o.name}{f', {o.unit}' if o.unit else ''} ({o.provenance.kind})" for o in shown]
    console.table(
        ["id", *heads, TEST],
        [
            (row["id"], *(_cell(o.name, row[o.name]) for o in shown), f"{row['test_accuracy']:.4f}")
            for row in rows
        ],
        marked=chosen,
    )


def _cell(name: str, value: float) -> str:
    if name == "accuracy":
        return f"{value:.4f}"
    return f"{value:.3f}" if name == "latency" else quantity(value)


def _write_csv(path: Path, result: Result, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    names = [o.name for o in (*result.objectives, *result.extras)]
    units = {o.name: f"{o.name}_{o.unit}" if o.unit else o.name for o in (*result.objectives, *result.extras)}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *(units[n] for n in names), "test_accuracy", "arch"])
    for row in rows:
        arch = Arch(row["arch"]).to_json()
        writer.writerow([row["id"], *(row[n] for n in names), row["test_accuracy"], arch])
    atomic_write(path, text.getvalue().encode())


def _figure(result: Result, front: Sequence[Trial], chosen: int, test: Sequence[float]) -> FrontPlot:
    axes = [*result.objectives, *result.extras][: max(2, len(result.objectives))]
    on_front = {trial.number: score for trial, score in zip(front, test, strict=True)}
    points = tuple(
        Point(
            tuple(result.value(trial, o.name) for o in axes),
            "front" if trial.number in on_front else "candidate" if trial.feasible else "infeasible",
            f"{trial.number}: {trial.arch.to_json()}",
            on_front.get(trial.number) if axes[0].name == "accuracy" else None,
        )
        for trial in result.trials
    )
    position = next(i for i, trial in enumerate(result.trials) if trial.number == front[chosen].number)
    places = {"latency": result.target.name, "accuracy": f"{result.job.data.name} validation"}
    return FrontPlot(
        tuple(
            Axis(o.name, o.unit, places.get(o.name, ""), o.provenance.kind, o.direction == "maximize")
            for o in axes
        ),
        points,
        chosen=position,
        title=f"{result.job.space.name} on {result.job.data.name} for {result.target.title}",
    )


def _facts(result: Result, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the exported file says of the network."""
    numbers = {k: v for k, v in row.items() if k not in ("id", "arch")}
    return {
        "numbers": numbers,
        "provenance": {o.name: o.provenance.to_dict() for o in (*result.objectives, *result.extras)},
        "supernet_sha256": result.supernet_digest,
    }


def _explain(result: Result, folder: Path, row: Mapping[str, Any]) -> str:
    """README.txt: what lies in the folder and how it came to be."""
    objectives = "\n".join(f"  {o.name}: {o.direction}, {o.provenance}" for o in result.objectives)
    limits = ", ".join(map(str, result.limits)) or "none"
    return f"""A search of {result.job.space.name} on {result.job.data.name} for {result.target.title}.

Objectives:
{objectives}
Limits: {limits}
Picked by {result.pick}: network {row["id"]}, test accuracy {row["test_accuracy"]:.4f}.

run.json     settings, data, versions, the front and what was picked; nas search --resume {folder}
study.db     every evaluated network, an Optuna study; nas dashboard {folder}
front.csv    the networks that no other one beats, with their test accuracy
front.png    all candidates and the front; front.html the same to point at
*.onnx       the picked network; its properties say how to feed it
"""
