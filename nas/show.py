"""`nas show`: what a run holds, as a table, a plot, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.console import Console, quantity
from nas.front_page import interactive_front
from nas.front_plot import Axis, FrontPlot, Point
from nas.plots import plot_front
from nas.run_record import NAME, read_record
from nas.settings import ShowSettings
from nas.study import Study
from search_spaces import InputError


def run(settings: ShowSettings, console: Console) -> Mapping[str, Any]:
    """The command. Returns what `--json` prints."""
    folder = Path(settings.run)
    record = read_record(folder)
    show = {"train": _show_training, "search": _show_search}.get(str(record.get("what")))
    if show is None:
        raise InputError(f"{folder / NAME} is of no kind that can be shown: {record.get('what')!r}")
    return show(folder, record, settings, console)


def _show_training(
    folder: Path, record: Mapping[str, Any], settings: ShowSettings, console: Console
) -> Mapping[str, Any]:
    lines = (folder / "log.jsonl").read_text().splitlines() if (folder / "log.jsonl").exists() else []
    epochs = [json.loads(line) for line in lines]
    if settings.plot:
        raise InputError(f"{folder} is a training; --plot draws the front of a search")
    console.say(
        f"[bold]training[/bold]  {record['space']['name']} on {record['data']['name']} by "
        f"{record['recipe']['name']}, {record['created']}"
    )
    if epochs:
        names = list(epochs[0])
        if settings.csv:
            rows = [names, *([e.get(n) for n in names] for e in epochs)]
            console.result("\n".join(",".join(map(str, row)) for row in rows))
        else:
            shown = epochs[-settings.top :]
            console.table(names, [[_number(e.get(n)) for n in names] for e in shown])
    if "result" not in record:
        console.warn(f"this training is not finished; nas train --resume {folder}")
    return {**record, "epochs": epochs}


def _number(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _show_search(
    folder: Path, record: Mapping[str, Any], settings: ShowSettings, console: Console
) -> Mapping[str, Any]:
    storage = record["settings"]["storage"]
    study = Study.read(storage or folder / "study.db", folder.name if storage else None)
    result = record.get("result")
    target = record["target"]
    console.say(
        f"[bold]search[/bold]    {record['space']['name']} on {record['data']['name']} for {target['title']}, "
        f"{len(study.trials)} networks, {record['created']}"
    )
    for name, source in record.get("provenance", {}).items():
        console.detail(f"          {name}: {source['kind']}, {source['detail']}")
    if result is None:
        console.warn(f"this search is not finished; nas search --resume {folder}")
    if settings.csv:
        console.result(study.frame().to_csv(index=False))
    elif result is not None:
        _front_table(record, settings.top, console)
        console.say(f"          picked by {result['pick']}: network {result['chosen']}")
        if file := result["files"].get("file"):
            console.say(f"          {file}")
    if settings.plot:
        _plot(settings.plot, study, record)
        console.say(f"          {settings.plot}")
    if result is not None:
        console.next_step(f"nas export {folder} --arch ID   or: nas dashboard {folder}")
    return {**record, "front": (result or {}).get("front", []), "evaluated": len(study.trials)}


def _front_table(record: Mapping[str, Any], top: int, console: Console) -> None:
    rows = record["result"]["front"][:top]
    provenance = record["provenance"]
    names = [n for n in rows[0] if n not in ("id", "arch")]
    heads = [f"{n} ({provenance[n]['kind']})" if n in provenance else n.replace("_", " ") for n in names]
    marked = next((i for i, row in enumerate(rows) if row["id"] == record["result"]["chosen"]), None)
    console.table(
        ["id", *heads],
        [(row["id"], *(_shown(n, row[n]) for n in names)) for row in rows],
        marked=marked,
    )


def _shown(name: str, value: float) -> str:
    if "accuracy" in name:
        return f"{value:.4f}"
    return f"{value:.3f}" if name == "latency" else quantity(value)


def _plot(path: str, study: Study, record: Mapping[str, Any]) -> None:
    """The plot of all trials, with the front of the result where the search is finished."""
    metrics = study.metrics
    if len(metrics) < 2:
        raise InputError(f"a plot needs two objectives; this search has {len(metrics)}")
    front = {row["id"]: row for row in (record.get("result") or {}).get("front", [])}
    points = tuple(
        Point(
            tuple(trial.values[m.name] for m in metrics),
            "front" if trial.number in front else "candidate" if trial.feasible else "infeasible",
            f"{trial.number}: {trial.arch.to_json()}",
            front[trial.number]["test_accuracy"]
            if trial.number in front and metrics[0].name == "accuracy"
            else None,
        )
        for trial in study.trials
    )
    chosen = (record.get("result") or {}).get("chosen")
    position = next((i for i, trial in enumerate(study.trials) if trial.number == chosen), None)
    kinds = study.attrs.get("provenance", {})
    axes = tuple(
        Axis(
            m.name,
            m.unit,
            record["target"]["name"] if m.name == "latency" else "",
            kinds.get(m.name, {}).get("kind", ""),
            m.direction == "maximize",
        )
        for m in metrics
    )
    figure = FrontPlot(
        axes, points, chosen=position, title=f"{record['space']['name']} for {record['target']['title']}"
    )
    if path.endswith(".html"):
        interactive_front(figure, path)
    elif path.endswith((".png", ".svg")):
        plot_front(figure, path)
    else:
        raise InputError(f"--plot {path}: the ending is .html, .png or .svg")
