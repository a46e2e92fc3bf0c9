"""The command line as its users have it, on the smallest runs that still do everything."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, CommandProcess, Ran, quietly

from nas.cli import main

Nas = Callable[..., Ran]
Start = Callable[..., CommandProcess]


@pytest.fixture
def nas(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Nas]:
    """Runs a command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_DEVICE", "cpu")
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Starts a command line in a process of its own, in the same folder as `nas`."""
    monkeypatch.setenv("NAS_DEVICE", "cpu")

    def run(*arguments: str | Path, **limits: Any) -> CommandProcess:
        return CommandProcess(tuple(map(str, arguments)), tmp_path, **limits)

    return run


@pytest.fixture(scope="session")
def supernet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a trained supernet. Not to be changed."""
    runs = tmp_path_factory.mktemp("trained")
    quietly("train", *TINY, "--runs", str(runs), "--name", "tiny", "--device", "cpu")
    return runs / "tiny"


@pytest.fixture(scope="session")
def searched(supernet: Path) -> Path:
    """The run folder of a search of it for a Jetson, 24 networks. Not to be changed."""
    runs = supernet.parent
    quietly(
        *("search", "--supernet", str(supernet), "--target", "jetson", "--evaluations", "24"),
        *("--population", "6", "--runs", str(runs), "--name", "found", "--device", "cpu"),
    )
    return runs / "found"
