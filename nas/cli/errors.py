"""From an exception to one line and an exit code.

0 ok             2 bad input      4 environment or permission      6 verification failed
1 unexpected     3 busy           5 out of disk or memory          130, 143 interrupted, terminated
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys

from nas.cli.environment import PACKAGES
from nas.console import Console
from search_spaces.errors import InputError, VerificationError

UNEXPECTED, INPUT, BUSY, ENVIRONMENT, RESOURCE, VERIFICATION = 1, 2, 3, 4, 5, 6
FULL = {errno.ENOSPC: "disk full", errno.EDQUOT: "disk quota used up", errno.EFBIG: "file size limit reached"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, outside the training loop, which answers the signal itself."""

    signum = int(signal.SIGTERM)


def report(error: BaseException, console: Console, debug: bool = False) -> int:
    """Say on `console` in one line what went wrong; the exit code. A broken pipe is not mentioned."""
    code = exit_code(error)
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return code
    # Of torchrun's processes one speaks: that which failed first, and of a mistake that all see, the first.
    if not getattr(error, "speaks", os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ):
        return code
    if debug:
        console.traceback(error)
    console.error(message(error))
    if isinstance(error, KeyboardInterrupt) and (command := getattr(error, "resume_command", None)):
        console.next_step(str(command))
    return code


def exit_code(error: BaseException) -> int:
    """The exit code of the exception, by its class."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + int(getattr(error, "signum", signal.SIGINT))
    if isinstance(error, BrokenPipeError):
        return 128 + int(signal.SIGPIPE)
    if isinstance(error, InputError) or _is_usage(error):
        return INPUT
    if isinstance(error, VerificationError):
        return VERIFICATION
    if _is(error, "supernets.files", "Busy"):
        return BUSY
    if isinstance(error, MemoryError) or _is(error, "torch", "OutOfMemoryError"):
        return RESOURCE
    if isinstance(error, OSError):
        return RESOURCE if error.errno in FULL else ENVIRONMENT
    return ENVIRONMENT if isinstance(error, ImportError) and not _is_ours(error) else UNEXPECTED


def message(error: BaseException) -> str:
    """The exception in one line: what, on which file, what to do."""
    if isinstance(error, KeyboardInterrupt):
        word = "terminated" if exit_code(error) == 128 + signal.SIGTERM else "interrupted"
        return f"{word}: {error}" if str(error) else word
    if _is_usage(error):
        return _usage(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        if error.errno in FULL:
            reason = error.strerror.replace(os.strerror(error.errno), FULL[error.errno])
        return reason + (f": {os.fsdecode(error.filename)}" if error.filename is not None else "")
    if exit_code(error) == RESOURCE:
        first = str(error).partition("\n")[0]
        smaller = "--batch-size, --image-size or --context"
        return f"out of memory{f' ({first})' if first else ''}; try a smaller {smaller}"
    text = str(error).strip().partition("\n")[0]
    foreseen = exit_code(error) != UNEXPECTED or _is(error, "supernets.trainer", "TrainingDiverged")
    if foreseen and text:
        return text
    return f"{type(error).__name__}: {text or 'no message'} (a bug? --debug shows where)"


def _is_ours(error: ImportError) -> bool:
    """Whether a module of this program failed to load, which no installation mends."""
    return isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] in PACKAGES


def _is(error: BaseException, module: str, name: str) -> bool:
    """Whether the error is of that class; if its module is not loaded, nobody can have raised it."""
    cls = getattr(sys.modules.get(module), name, None)
    return isinstance(cls, type) and isinstance(error, cls)


def _is_usage(error: BaseException) -> bool:
    """A usage error of the option parser: Click's own, or of the copy that newer Typer carries."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _usage(error: BaseException) -> str:
    near = getattr(error, "possibilities", None)
    if near:
        return f"no such option: {getattr(error, 'option_name', '')}; did you mean {near[0]}?"
    text: str = error.format_message()  # type: ignore[attr-defined]
    text = text.strip().rstrip(".")
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "nas")
    return f"{text[:1].lower()}{text[1:]}{'' if text.endswith('?') else f' (see {command} --help)'}"


def _drop_output() -> None:
    """Nobody reads stdout any more: send the rest nowhere, so that the interpreter can close it in peace."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
