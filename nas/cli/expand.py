"""`nas expand`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from nas.cli.options import command
from nas.console import Console
from nas.expand_settings import ExpandSettings

EXAMPLES = """
    nas expand runs/NAME --depth 6            # the network of 6 layers
    nas expand runs/NAME --depth 4,6,8 --epochs 5
    nas expand runs/NAME --depth 6 --epochs 5 --data imagefolder:DIR
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(app, ExpandSettings, EXAMPLES, config=False)
    def expand(settings: ExpandSettings, console: Console) -> Mapping[str, Any] | None:
        """Make ordinary networks of any depth from a training by sws or tleg.

        Each is a run folder and a file for nas.load_subnet. With --epochs it is fine-tuned first; an
        interrupted one loses nothing, the same command goes on.
        """
        from nas.expand import run

        return run(settings, console)
