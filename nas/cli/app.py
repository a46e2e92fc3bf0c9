"""`nas`: the commands together, and what holds for all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from nas.cli import audit, catalogue, expand, export, generate, search, show, train
from nas.cli.errors import Terminated, report
from nas.cli.help import Group
from nas.console import Console

DISTRIBUTION = "elastic-nas"


class Nas(Group):
    """The top-level help."""

    examples = """
        nas search --target jetson          # train a small supernet, search it
        nas train --data cifar10 --name cf  # train a supernet of your own
        nas search --supernet runs/cf --target jetson --max-params 2M
        nas audit runs/cf                   # can its ranking be trusted?
        nas show runs/NAME                  # the networks that were found
        nas export runs/NAME --arch 17      # one of them as ONNX, checked
    """


app = typer.Typer(
    cls=Nas,
    name="nas",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        with contextlib.suppress(PackageNotFoundError):
            typer.echo(f"nas {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def nas(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Train one supernet, then find, for any hardware, the sub-network that is worth deploying."""


for module in (search, train, expand, audit, export, generate, show, catalogue):
    module.register(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, `sys.argv` if none is given; returns the exit code (`nas.cli.errors`)."""

    # Threads that wait by spinning slow small networks down seven-fold where a core is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    def terminate(signum: int, frame: FrameType | None) -> NoReturn:
        del signum, frame
        raise Terminated

    with contextlib.suppress(ValueError):  # not the main thread: the caller's signals stay as they are
        signal.signal(signal.SIGTERM, terminate)
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        parser: Any = typer.main.get_command(app)
        code = parser.main(args=arguments, prog_name="nas", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every failure ends in a line and a code
        return report(error, Console())
    return code if isinstance(code, int) else 0
