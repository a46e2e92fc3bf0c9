"""A finished search as a table, a plot and a file, from its record (run.json) and its trials.

What a record holds for this: `units` and `provenance` by the name of each number, and `result` with the rows
of the front, `chosen` (the id of the network picked) and `largest`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.console import Console, quantity
from nas.front_plot import Axis, FrontPlot, Point
from nas.trial import MetricSpec, Trial
from search_spaces.arch import Arch
from search_spaces.errors import InputError
from supernets.files import atomic_write

Record = Mapping[str, Any]
_NOT_NUMBERS = ("id", "arch")


def front_table(record: Record, console: Console, top: int | None = None) -> None:
    """The rows of the front, cheapest first, with units and provenance; an asterisk marks the one picked."""
    result = record["result"]
    rows = result["front"][:top]
    hidden = {"memory"} - set(record["settings"]["objectives"])
    names = [n for n in result["front"][0] if n not in _NOT_NUMBERS and n not in hidden]
    picked = next((i for i, row in enumerate(rows) if row["id"] == result["chosen"]), None)
    console.table(
        ["", "id", *(_heading(record, n) for n in names)],
        [
            ("*" if i == picked else " ", row["id"], *(_cell(n, row[n]) for n in names))
            for i, row in enumerate(rows)
        ],
        marked=picked,
    )


def _heading(record: Record, name: str) -> str:
    unit = record["units"].get(name, "")
    source = record["provenance"].get(name)
    return name.replace("_", " ") + (f", {unit}" if unit else "") + (f" ({source['kind']})" if source else "")


def _cell(name: str, value: float) -> str:
    if "accuracy" in name:
        return f"{value:.4f}"
    return f"{value:.3f}" if name == "latency" or "perplexity" in name else quantity(value)


def write_csv(record: Record, path: Path) -> None:
    """The front as CSV with units in the names of the columns."""
    rows = record["result"]["front"]
    names = [n for n in rows[0] if n not in _NOT_NUMBERS]
    units = record["units"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *(f"{n}_{units[n]}" if units.get(n) else n for n in names), "arch"])
    for row in rows:
        writer.writerow([row["id"], *(row[n] for n in names), Arch(row["arch"]).to_json()])
    atomic_write(path, text.getvalue().encode())


def front_figure(record: Record, trials: Sequence[Trial], metrics: Sequence[MetricSpec]) -> FrontPlot:
    """All trials by their objectives, with the front and the picked network where the search is finished.

    A search for one objective is drawn against the first of its other numbers.
    """
    result = record.get("result") or {"front": [], "chosen": None}
    front = {row["id"]: row for row in result["front"]}
    maximised = {m.name for m in metrics if m.direction == "maximize"}
    names = [m.name for m in metrics]
    if len(names) < 2:
        names += [n for n in record.get("units", {}) if n not in names][:1]
    validation = f"{record['data']['name']} validation"
    places = {"latency": record["target"]["name"], "accuracy": validation, "perplexity": validation}
    units = {m.name: m.unit for m in metrics} | record.get("units", {})
    axes = tuple(
        Axis(
            name,
            units.get(name, ""),
            places.get(name, ""),
            record.get("provenance", {}).get(name, {}).get("kind", ""),
            name in maximised,
        )
        for name in names
    )
    points = tuple(
        Point(
            tuple(number(trial, name) for name in names),
            "front" if trial.number in front else "candidate" if trial.feasible else "infeasible",
            f"{trial.number}: {trial.arch.to_json()}",
            front[trial.number].get(f"test_{names[0]}") if trial.number in front else None,
        )
        for trial in trials
    )
    chosen = next((i for i, trial in enumerate(trials) if trial.number == result["chosen"]), None)
    title = f"{record['space']['name']} on {record['data']['name']} for {record['target']['title']}"
    return FrontPlot(axes, points, chosen=chosen, title=title)


def number(trial: Trial, name: str) -> float:
    """An objective of a trial, or another number that it carries."""
    return float(trial.values[name] if name in trial.values else trial.attrs[name])


def plot(figure: FrontPlot, path: str | Path) -> None:
    """The figure as .html, .png or .svg.

    Raises:
        InputError: another ending.
    """
    ending = Path(path).suffix
    if ending == ".html":
        from nas.front_page import interactive_front

        interactive_front(figure, path)
    elif ending in (".png", ".svg"):
        from nas.plots import plot_front

        plot_front(figure, path)
    else:
        raise InputError(f"cannot plot to {path}: the ending is .html, .png or .svg")
