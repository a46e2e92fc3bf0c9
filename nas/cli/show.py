"""`nas show` and `nas dashboard`: what a run found, here and in the browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from nas.cli.options import command
from nas.console import Console
from nas.run_settings import DashboardSettings, ShowSettings

SHOW = """
    nas show runs/NAME                             # summary and front
    nas show runs/NAME --top 5 --plot front.html
    nas show runs/NAME --csv > front.csv
    nas show runs/NAME --json | jq '.front[0]'
"""
DASHBOARD = """
    nas dashboard runs/NAME            # http://127.0.0.1:8080
    nas dashboard runs/NAME --port 0   # on a free port
    nas dashboard --storage postgresql://host/nas
    nas dashboard runs/NAME --host 0.0.0.0 --allow-hosts mybox.lan
"""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @command(app, ShowSettings, SHOW)
    def show(settings: ShowSettings, console: Console) -> Mapping[str, Any] | None:
        """Show a run: its settings, its numbers, and the networks on the front of a search."""
        from nas.show import run

        return run(settings, console)

    @command(app, DashboardSettings, DASHBOARD)
    def dashboard(settings: DashboardSettings, console: Console) -> Mapping[str, Any] | None:
        """Open a study in the browser: the Optuna dashboard, read-only and for this machine only."""
        from nas.dashboard import serve

        def ready(url: str) -> None:
            console.result(url)
            console.say("[dim]Ctrl-C stops it.[/dim]")
            console.flush()

        serve(
            settings.run or settings.storage or "",
            host=settings.host,
            port=settings.port,
            allow_writes=settings.allow_writes,
            allow_hosts=settings.allow_hosts,
            ready=ready,
        )
        return None
