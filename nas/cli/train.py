"""`nas train`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from nas.cli.options import command
from nas.console import Console
from nas.train_settings import TrainSettings

EXAMPLES = """
    nas train                                # the default space, on digits
    nas train --data fashion-mnist --epochs 10 --name fm
    nas train studies/fashion.yaml --seed 3  # a file, one setting changed
    nas train --space gpt --data text:book.txt --context 128
    nas train --space my_package.my_module:space --data ./flowers
    nas train --space-set width=0.75 --recipe-set n=6 --dry-run
    nas train --resume runs/fm               # go on where it stopped
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(app, TrainSettings, EXAMPLES)
    def train(settings: TrainSettings, console: Console) -> Mapping[str, Any] | None:
        """Train a supernet: one set of weights that all networks of a space share.

        Writes a run folder with the weights, the settings and a log. An interrupted run loses nothing:
        --resume continues it to the same weights.
        """
        from nas.train import run

        return run(settings, console)
