"""`nas show`: what a run holds, as a table, a plot, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.console import Console
from nas.report import front_figure, front_table, plot
from nas.run_record import NAME, read_record
from nas.run_settings import ShowSettings
from nas.study import read_study
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
    if settings.plot:
        raise InputError(f"{folder} is a training; --plot draws the front of a search")
    log = folder / "log.jsonl"
    epochs = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    names = list(epochs[0]) if epochs else []
    if settings.csv:
        rows = [names, *([epoch.get(name) for name in names] for epoch in epochs)]
        console.result("\n".join(",".join(map(str, row)) for row in rows))
    else:
        console.say(
            f"[bold]training[/bold]  {record['space']['name']} on {record['data']['name']} by "
            f"{record['recipe']['name']}, {record['created']}"
        )
        shown = epochs[-settings.top :]
        console.table(names, [[_number(epoch.get(name)) for name in names] for epoch in shown])
    if "result" not in record:
        console.warn(f"this training is not finished; nas train --resume {folder}")
    return {**record, "epochs": epochs}


def _number(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _show_search(
    folder: Path, record: Mapping[str, Any], settings: ShowSettings, console: Console
) -> Mapping[str, Any]:
    result = record.get("result")
    if result is None:
        console.warn(f"this search is not finished; nas search --resume {folder}")
    if not record.get("study"):
        return {**record, "front": [], "evaluated": 0}
    study = read_study(folder, record)
    if settings.csv:
        console.result(study.frame().to_csv(index=False))
    else:
        _say_search(folder, record, len(study.trials), settings.top, console)
    if settings.plot:
        plot(front_figure(record, study.trials, study.metrics), settings.plot)
        if not settings.csv:
            console.say(f"          {settings.plot}")
    return {**record, "front": (result or {}).get("front", []), "evaluated": len(study.trials)}


def _say_search(folder: Path, record: Mapping[str, Any], networks: int, top: int, console: Console) -> None:
    console.say(
        f"[bold]search[/bold]    {record['space']['name']} on {record['data']['name']} "
        f"for {record['target']['title']}, {networks} networks, {record['created']}"
    )
    for name, source in record.get("provenance", {}).items():
        console.detail(f"          {name}: {source['kind']}, {source['detail']}")
    if (result := record.get("result")) is None:
        return
    front_table(record, console, top)
    console.say(f"          picked by {result['pick']}: network {result['chosen']}")
    if file := result["files"].get("file"):
        console.say(f"          {file}")
    console.next_step(f"nas export {folder} --arch ID   or: nas dashboard {folder}")
