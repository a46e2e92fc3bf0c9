"""Run folders: where they lie, and the record that lets a run be understood and resumed."""

from __future__ import annotations

import errno
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas.run_record import NAME, read_record
from search_spaces.errors import InputError
from supernets.files import write_json

_PACKAGES = ("elastic-nas", "torch", "torchvision", "timm", "numpy", "optuna", "pymoo", "onnx", "onnxruntime")


def new_run(runs: str, name: str | None, automatic: str) -> Path:
    """A folder for a new run: `runs/name`, or `runs/automatic` with a number behind it if that is taken.

    Raises:
        InputError: `name` is taken, or is not a plain name.
        OSError: the folder cannot be made.
    """
    root = Path(runs)
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder, so it cannot hold runs", str(root))
    if name is not None:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise InputError(
                f"name {name!r} is not a folder name; use letters, digits, '.', '_', '-' and '+'"
            )
        folder = root / name
        if (folder / NAME).exists():
            what = read_record(folder).get("what", "search")
            raise InputError(f"run {folder} exists; give another --name, or: nas {what} --resume {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 100_000):
        folder = root / (automatic if number == 1 else f"{automatic}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            if folder.is_dir():
                continue
            raise
        return folder
    raise InputError(f"{root} holds too many runs named {automatic}; give a --name")


def begun_by(runs: str, launch: str | None) -> Path | None:
    """The run that an earlier attempt of the same launch began; None if it died before its record."""
    for path in sorted(Path(runs).glob(f"*/{NAME}")):
        if launch is not None and read_record(path.parent).get("launch") == launch:
            return path.parent
    return None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes run.json."""
    write_json(folder / NAME, dict(record))


def environment() -> dict[str, Any]:
    """When and on what a run runs, for its record."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of this program and of what its results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def file_name(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^\w.+]+", "-", text, flags=re.ASCII)[-60:].strip("-.+") or "run"
