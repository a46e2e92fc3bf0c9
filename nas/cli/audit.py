"""`nas audit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from nas.cli.options import command
from nas.console import Console
from nas.run_settings import AuditSettings

EXAMPLES = """
    nas audit runs/NAME              # 12 networks, each trained alone
    nas audit runs/NAME --dry-run    # what that costs
    nas audit runs/NAME --networks 20 --epochs 5
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(app, AuditSettings, EXAMPLES, config=False)
    def audit(settings: AuditSettings, console: Console) -> Mapping[str, Any] | None:
        """Find out whether a supernet's ranking can be trusted, against networks trained alone.

        Writes audit.json, audit.csv and audit.png into the run folder. An interrupted audit loses nothing:
        the same command goes on where it stopped.
        """
        from nas.audit import run

        return run(settings, console)
