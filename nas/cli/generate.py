"""`nas generate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from nas.cli.options import command
from nas.console import Console
from nas.run_settings import GenerateSettings

EXAMPLES = """
    nas generate runs/NAME --prompt 'To be'       # the likeliest text
    nas generate runs/NAME --temperature 0.8      # another with each --seed
    nas generate runs/NAME --draft smallest       # same text, in fewer passes
    nas generate runs/NAME --draft exit:2         # drafts from its own block 2
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(app, GenerateSettings, EXAMPLES)
    def generate(settings: GenerateSettings, console: Console) -> Mapping[str, Any] | None:
        """Write text with a language model of a run, byte by byte.

        With --draft a smaller network proposes and the chosen one checks: the text is the same.
        """
        from nas.generate import run

        return run(settings, console)
