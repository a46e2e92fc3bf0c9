"""`run.json`: what was run in a run folder, with the settings that a resumed run takes up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.config import ConfigError, Given, from_saved

NAME = "run.json"


def read_record(run: str | Path) -> dict[str, Any]:
    """The record of the run folder.

    Raises:
        FileNotFoundError: there is no such run, or its folder has no record.
        ConfigError: the record is damaged.
    """
    path = Path(run) / NAME
    if not path.is_file():
        found = "has no run.json: not a run folder" if path.parent.is_dir() else "no such run folder"
        raise FileNotFoundError(2, found, str(run))
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error})") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{path} is damaged (no JSON object)")
    return record


def supernet_of(run: str | Path, record: Mapping[str, Any]) -> Path:
    """The folder of the supernet that a search used: where the record has it, or beside the run.

    The latter serves runs that were moved together, and commands in another folder than the search's.
    """
    recorded = Path(record["supernet"])
    beside = Path(run).absolute().parent / recorded.name
    return beside if beside.exists() and not recorded.exists() else recorded


def saved_settings(run: str | Path, command: str) -> dict[str, Given]:
    """The settings of the run, for `nas.config.resumed`.

    Raises:
        ConfigError: the run is of another command than `nas <command>`, or its record is damaged.
        FileNotFoundError: there is no such run.
    """
    record = read_record(run)
    if record.get("what") != command:
        raise ConfigError(
            f"{run} is a run of 'nas {record.get('what')}': it cannot be resumed by 'nas {command}'"
        )
    settings = record.get("settings")
    if not isinstance(settings, dict):
        raise ConfigError(f"{Path(run) / NAME} is damaged (it has no settings)")
    return from_saved(settings, str(Path(run) / NAME))
