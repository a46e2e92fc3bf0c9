"""Tensors on disk: a safetensors file and a JSON file beside it that says what it is and proves it whole.

The JSON file is the commit point. A save writes the tensors under a pending name, then replaces the JSON
file, which carries their SHA-256, then renames the pending file. A reader that finds the pending file knows
that only the rename was lost. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from search_spaces.errors import InputError
from supernets.files import atomic_write, sync_directory, write_json

_FORMAT = "elastic-nas tensors 1"


class CheckpointError(InputError):
    """A file of tensors that is missing, damaged or not one of ours."""


def sidecar(path: Path | str) -> Path:
    """The JSON file beside `path`: `x.safetensors` -> `x.json`."""
    return Path(path).with_suffix(".json")


def previous(path: Path | str) -> Path:
    """Where `save_checkpoint` keeps the save before the last: `x.safetensors` -> `x.previous.safetensors`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """`path` and its JSON file hold `tensors` and the JSON-able `meta`, or still what they held before.

    Raises:
        OSError: not writable or disk full; what was there is intact.
    """
    _save(Path(path), tensors, meta, keep=False)


def save_checkpoint(path: Path | str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """As `save_tensors`, and what was at `path` is now at `previous(path)`."""
    _save(Path(path), tensors, meta, keep=True)


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the meta of `path`, checked against its digest. Reads only.

    Raises:
        CheckpointError: missing, truncated, altered, empty, foreign or a pickle; names the previous save
            where there is a whole one.
    """
    path = Path(path)
    try:
        return _load(path)
    except CheckpointError as error:
        older = previous(path)
        try:
            _load(older)
        except CheckpointError:
            raise error from None
        raise CheckpointError(
            f"{error}; the save before it is whole: {older} (delete {path.name} to use it)"
        ) from None


def settle(path: Path | str) -> None:
    """Finishes the rename of a save that was killed after its commit, and drops those killed before it."""
    path = Path(path)
    committed = _pending(path, _record(path)["sha256"]) if sidecar(path).exists() else None
    for pending in path.parent.glob(f".{path.name}.*.pending"):
        if pending == committed:
            _rotate(path, pending, keep=sidecar(previous(path)).exists())
        else:
            pending.unlink()


def _save(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, keep: bool) -> None:
    from safetensors.torch import save

    blob = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(blob).hexdigest()
    record = {"format": _FORMAT, "sha256": digest, "bytes": len(blob), "meta": dict(meta)}
    record["seal"] = _seal(record)
    try:
        settle(path)
        keep = keep and path.exists() and sidecar(path).exists()
    except CheckpointError:
        keep = False  # what is there is damaged: not worth the place of the whole one before it
    pending = _pending(path, digest)
    try:
        atomic_write(pending, blob)
    except OSError as error:
        error.filename = str(path)  # the name that its user knows
        raise
    try:
        if keep:
            atomic_write(sidecar(previous(path)), sidecar(path).read_bytes())
        write_json(sidecar(path), record)
    except BaseException:
        pending.unlink(missing_ok=True)
        raise
    _rotate(path, pending, keep=keep)


def _rotate(path: Path, pending: Path, *, keep: bool) -> None:
    """The pending file becomes `path`; where asked, `path` becomes the previous one."""
    if keep and path.exists():
        os.replace(path, previous(path))
    os.replace(pending, path)
    sync_directory(path.parent)


def _pending(path: Path, digest: str) -> Path:
    return path.with_name(f".{path.name}.{digest[:16]}.pending")


def _record(path: Path) -> dict[str, Any]:
    """What the JSON file of `path` says, checked for shape."""
    try:
        record = json.loads(sidecar(path).read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} has no {sidecar(path).name} beside it: no file that was saved here"
        ) from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{sidecar(path)} is damaged: no JSON") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise CheckpointError(f"{sidecar(path)} does not describe a file of tensors that was saved here")
    if not record.keys() >= {"sha256", "bytes", "meta"} or record.get("seal") != _seal(record):
        raise CheckpointError(f"{sidecar(path)} is damaged: its digest is not that of what was saved")
    return record


def _seal(record: Mapping[str, Any]) -> str:
    """The digest of a record's own content: a flipped bit in the JSON file must not pass either."""
    content = json.dumps({**record, "seal": None}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.exists() and not sidecar(path).exists():
        raise CheckpointError(f"{path} does not exist")
    record = _record(path)
    pending = _pending(path, record["sha256"])
    try:
        blob = (pending if pending.exists() else path).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing, its {sidecar(path).name} is there") from None
    if len(blob) != record.get("bytes"):
        raise CheckpointError(f"{path} is damaged: {len(blob)} bytes, {record.get('bytes')} were saved")
    if hashlib.sha256(blob).hexdigest() != record["sha256"]:
        raise CheckpointError(f"{path} is damaged: its digest is not that of what was saved")
    try:
        return load(blob), record["meta"]
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from None
