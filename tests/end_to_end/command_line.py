"""`nas` as its users run it: small settings, what has to hold of every error, and processes to be killed.

Processes are forked from a clean server that has loaded the libraries and computed nothing, so that each
costs what it does and not the imports.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.cli import main

TINY = (
    *("--image-size", "8", "--epochs", "2", "--batch-size", "128"),
    *("--space-set", "depths=[1,2]", "--space-set", "kernels=[3]", "--space-set", "expands=[2,3]"),
    *("--space-set", "resolutions=[8]", "--space-set", "width=0.5"),
)
"""216 networks of a few thousand parameters, trained by 16 steps in about a second."""

_LOADED = [
    "nas.search",
    "nas.searchers.nsga2",
    "nas.deliver",
    "nas.show",
    "nas.data.digits",
    "search_spaces.gpt",
    "search_spaces.mobilenet_v3",
    "supernets.recipes.sandwich",
    "supernets.schemes.slice",
    "nas.plots",
    "nas.front_page",
    "timm.optim",
    "timm.scheduler",
    "optuna.storages._rdb.models",
    "optuna_dashboard",
    "alembic.command",
    "sqlalchemy.dialects.sqlite",
    "sklearn.datasets",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "plotly.graph_objects",
    "onnx",
    "onnxscript",
]
_PASSED_ON = ("NAS_", "NO_COLOR", "COLUMNS", "RANK", "LOCAL_", "WORLD_SIZE", "MASTER_")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_LOADED)


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str


def quietly(*arguments: str) -> dict[str, Any]:
    """Runs a command that has to work, for a fixture that others share."""
    before, out = signal.getsignal(signal.SIGTERM), io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*arguments, "--json", "-q"]) == 0
    signal.signal(signal.SIGTERM, before)
    return json.loads(out.getvalue())


def record_of(run: Path) -> dict[str, Any]:
    """What run.json says."""
    return json.loads((run / "run.json").read_text())


def refused(ran: Ran, code: int, *said: str) -> None:
    """Checks that it ended with that code and one line that says all of `said`, and printed no result."""
    assert ran.code == code, ran
    assert ran.err.startswith("nas: error: "), ran
    assert ran.err.count("\n") == 1, ran
    assert ran.err.endswith("\n")
    assert "bug?" not in ran.err
    for part in said:
        assert part in ran.err, ran


class CommandProcess:
    """A running `nas ...` in the folder `cwd`; what it prints goes to files there."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        cwd: Path,
        *,
        file_limit: int | None = None,
        die_at: tuple[str, int] | None = None,
    ) -> None:
        self._printed = [cwd / f"{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        environment = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
        self._process = _context.Process(
            target=_nas,
            args=(arguments, str(cwd), [str(p) for p in self._printed], environment, file_limit, die_at),
        )
        self._process.start()
        self.pid = int(self._process.pid or 0)

    def wait_until(self, reached: Callable[[], bool], seconds: float = 60.0) -> None:
        """Returns when `reached()` is true; it is an error if the process ends before."""
        end = time.monotonic() + seconds
        while not reached():
            assert self._process.is_alive(), f"ended too early: {self.wait()}"
            assert time.monotonic() < end, "took too long"
            time.sleep(0.002)

    def send(self, signum: signal.Signals) -> None:
        """Sends a signal; nothing if the process has ended."""
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            return

    def wait(self, seconds: float = 60.0) -> Ran:
        """The end of the process; its code is negative when a signal killed it."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            raise AssertionError("took too long")
        out, err = (p.read_text() if p.exists() else "" for p in self._printed)
        for path in self._printed:
            path.unlink(missing_ok=True)
        assert self._process.exitcode is not None
        return Ran(self._process.exitcode, out, err)


def _nas(
    arguments: tuple[str, ...],
    cwd: str,
    printed: list[str],
    environment: Mapping[str, str],
    file_limit: int | None,
    die_at: tuple[str, int] | None,
) -> None:
    os.chdir(cwd)
    os.environ.update(environment)
    for number, path in enumerate(printed, start=1):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    sys.argv = ["nas", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if die_at is not None:
        _die_at(*die_at)
    sys.exit(main(arguments))


def _die_at(function: str, count: int) -> None:
    """Killed, as by `kill -9`, instead of the `count`-th call (from 0) of `os.<function>`."""
    real, calls = getattr(os, function), iter(range(count))

    def counted(*arguments: object, **named: object) -> object:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    setattr(os, function, counted)
