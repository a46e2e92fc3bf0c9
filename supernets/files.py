"""Files that are whole or absent, and folders that one process uses at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

_TEMPORARY = ".tmp"
_LOCK = ".lock"
_held: set[int] = set()


class Busy(RuntimeError):
    """Another process uses what this one needs."""


def atomic_write(path: Path | str, content: bytes | Callable[[BinaryIO], None]) -> None:
    """`path` holds `content`, all of it; a kill or an error at any moment leaves what was there before.

    `content` is the bytes, or a function that writes them to an open binary file. The temporary file lies in
    the same directory, since a rename is atomic only within one file system.

    Raises:
        OSError: the directory is missing or not writable, or the disk is full (ENOSPC, EDQUOT, EFBIG).
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            # Held while writing, so that `clean_temporaries` can tell a stray file from one in the making.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
            os.replace(name, path)
    except OSError as error:
        _remove(name)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            need = f", needs {len(content) / 1e6:.1f} MB" if isinstance(content, bytes) else ""
            raise OSError(error.errno, f"{os.strerror(error.errno)}{need}", str(path)) from error
        raise
    except BaseException:
        _remove(name)
        raise
    sync_directory(path.parent)


def write_json(path: Path | str, value: Any) -> None:
    """`path` holds `value` as JSON, written atomically. NaN and infinity are refused with `ValueError`."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    atomic_write(path, f"{text}\n".encode())


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(folder: Path | str) -> None:
    """Makes renames in `folder` survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean_temporaries(folder: Path | str) -> list[str]:
    """Removes what killed processes left half written in `folder`, and names it; files in the making stay."""
    removed = []
    for path in sorted(Path(folder).glob(f".*{_TEMPORARY}")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed.append(path.name)
    return removed


@contextlib.contextmanager
def lock(folder: Path | str) -> Iterator[None]:
    """Within it, this is the only process (and thread) that holds `folder`; a kill releases it.

    Raises:
        Busy: another holds it; the message names its process.
        OSError: the folder is missing or not writable.
    """
    _forget_in_children()
    handle = os.open(Path(folder) / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
            raise Busy(f"{folder} is in use by {f'pid {holder}' if holder else 'another process'}") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        _held.add(handle)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


@cache
def _forget_in_children() -> None:
    """A forked worker would keep the lock of a killed parent alive: children close their copy."""
    os.register_at_fork(after_in_child=_close_held)


def _close_held() -> None:
    while _held:
        os.close(_held.pop())


@cache
def _umask() -> int:
    """The process's umask. It can only be read by setting it, hence once."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _remove(name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name)
