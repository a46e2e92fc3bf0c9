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
from nas.strict_yaml import ConfigError
from nas.study import read_study
from search_spaces import InputError
from supernets.progress import read_log


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
    epochs = read_log(log) if log.exists() else []
    names = list(epochs[0]) if epochs else []
    audit = _audit(folder)
    if settings.csv:
        rows: list[list[Any]] = [names, *([epoch.get(name) for name in names] for epoch in epochs)]
        console.result("\n".join(",".join(map(str, row)) for row in rows))
    else:
        console.say(
            f"[bold]training[/bold]  {record['space']['name']} on {record['data']['name']} by "
            f"{record['recipe']['name']}, {record['created']}"
        )
        if epochs:
            shown = epochs[-settings.top :]
            console.table(names, [[_number(epoch.get(name)) for name in names] for epoch in shown])
        _say_expanded(record, console)
        if audit is not None:
            tau, low, high = (audit["fidelity"][name] for name in ("tau", "low", "high"))
            spread = "none" if tau is None else f"{tau:.2f} (95 % interval {low:.2f} to {high:.2f})"
            console.say(
                f"[bold]audit[/bold]     Kendall tau {spread} over {audit['fidelity']['networks']} networks; "
                f"{folder / 'audit.csv'}"
            )
    if "result" not in record:
        console.warn(f"this training is not finished; nas train --resume {folder}")
    return {**record, "epochs": epochs} | ({} if audit is None else {"audit": audit})


def _say_expanded(record: Mapping[str, Any], console: Console) -> None:
    """Where a network of `nas expand` comes from, and what it scores."""
    if (made := record.get("expanded")) is None:
        return
    tuned = f"fine-tuned for {made['epochs']} epochs" if made["epochs"] else "not fine-tuned"
    scored = {k: v for k, v in record["result"].items() if k.startswith(("validation_", "test_"))}
    words = [f"{name.replace('_', ' ')} {_number(v)}" for name, v in scored.items() if isinstance(v, float)]
    console.say(f"[bold]expanded[/bold]  to depth {made['depth']} out of {made['run']}, {tuned}")
    console.say(f"          {', '.join(words)}")


def _audit(folder: Path) -> dict[str, Any] | None:
    """What `nas audit` found on the run; None if it was not audited.

    Raises:
        ConfigError: its record is damaged.
    """
    path = folder / "audit.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"tau", "low", "high", "networks"} <= found["fidelity"].keys():
            raise ValueError("it has no tau")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); nas audit writes it again") from None
    return dict(found)


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
