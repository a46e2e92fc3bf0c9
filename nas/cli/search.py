"""`nas search`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from nas.cli.options import command
from nas.console import Console
from nas.search_settings import SearchSettings

EXAMPLES = """
    nas search --target jetson              # trains a small supernet first
    nas search --supernet runs/fm --target jetson --max-latency-ms 2
    nas search studies/digits_jetson.yaml   # settings from a file
    nas search --objectives accuracy,params --max-params 300k
    nas search --target cpu --pick 'accuracy>0.97, latency_ms<2'
    nas search --target jetson --dry-run    # the plan and its cost
    nas search --resume runs/NAME           # go on where it stopped
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(app, SearchSettings, EXAMPLES)
    def search(settings: SearchSettings, console: Console) -> Mapping[str, Any] | None:
        """Search a supernet for the networks that are worth deploying on a target.

        Writes a run folder with the study, the front as table and plot, and the picked network as a file.
        Without --supernet one is trained first, by the settings of 'nas train'.
        """
        from nas.search import run

        return run(settings, console)
