"""How commands fail: one line, and an exit code by the kind of the error."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas.cli import environment
from nas.cli.errors import Terminated, exit_code, message, report
from nas.config import ConfigError
from nas.console import Console
from search_spaces.errors import InputError, SpaceError, VerificationError
from supernets.files import Busy


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("wrong"), 2, "wrong"),
        (ConfigError("wrong"), 2, "wrong"),
        (SpaceError("wrong"), 2, "wrong"),
        (Busy("runs/a is in use by pid 1"), 3, "runs/a is in use by pid 1"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 4, "permission denied: a"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", b"a"),
            4,
            "no such file or directory: a",
        ),
        (FileNotFoundError("no folder 'a'"), 4, "no folder 'a'"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"), 4, "not a directory: a"),
        (ModuleNotFoundError("install dask", name="dask"), 4, "install dask"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 4, "connection refused"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 5, "disk full: a"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a"), 5, "disk quota used up: a"),
        (OSError(errno.EFBIG, "File too large", "a"), 5, "file size limit reached: a"),
        (MemoryError(), 5, "out of memory; try a smaller --batch-size, --image-size or --context"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to"),
            5,
            "out of memory (CUDA out of memory. Tried to)",
        ),
        (VerificationError("differs by 3"), 6, "differs by 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
        (ValueError("a\nb"), 1, "ValueError: a (a bug? --debug shows where)"),
        (ModuleNotFoundError("No module named 'nas.x'", name="nas.x"), 1, "ModuleNotFoundError: No module"),
        (RuntimeError(), 1, "RuntimeError: no message"),
    ],
)
def test_each_failure_has_its_code_and_its_line(error: BaseException, code: int, line: str) -> None:
    assert exit_code(error) == code
    assert message(error).startswith(line)
    err = io.StringIO()
    assert report(error, Console(stderr=err)) == code
    assert err.getvalue().startswith(f"nas: error: {line}")
    assert err.getvalue().count("\n") == 1


def test_an_interrupted_run_says_how_to_go_on() -> None:
    error = KeyboardInterrupt("saved at step 3")
    error.resume_command = "nas train --resume runs/a"  # type: ignore[attr-defined]
    err = io.StringIO()
    assert report(error, Console(stdout=err, stderr=err)) == 130
    assert err.getvalue() == ("nas: error: interrupted: saved at step 3\n  next: nas train --resume runs/a\n")


def test_the_traceback_is_for_debug_only() -> None:
    err = io.StringIO()
    report(ValueError("x"), Console(stderr=err))
    assert "Traceback" not in err.getvalue()
    assert "nas: error: ValueError: x" in err.getvalue()
    err = io.StringIO()
    try:
        raise ValueError("x")
    except ValueError as error:
        report(error, Console(stderr=err), debug=True)
    assert err.getvalue().startswith("Traceback (most recent call last)")
    assert "nas: error: ValueError: x" in err.getvalue()


def test_a_closed_pipe_is_no_error() -> None:
    line = f"{sys.executable} -m nas targets | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_sigterm_is_reported_with_its_code(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from nas.cli import options\n"
        "options.check_packages = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from nas.cli import main\n"
        "sys.exit(main(['targets']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "nas: error: terminated\n")


def test_a_foreign_package_of_our_name_is_called_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.check_packages()
    foreign = tmp_path / "kernels"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "nas", "targets"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 4
    assert f"'kernels' resolves to {foreign}, which is not part of this program" in done.stderr
