"""`nas export`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from nas.cli.options import command
from nas.console import Console
from nas.run_settings import ExportSettings

EXAMPLES = """
    nas export runs/NAME                          # the picked one as ONNX
    nas export runs/NAME --arch 17 -o model.onnx  # 17 of 'nas show'
    nas export runs/NAME --format safetensors     # for nas.load_subnet
    nas export runs/NAME --opset 17 --batch 1     # an older runtime
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @command(app, ExportSettings, EXAMPLES)
    def export(settings: ExportSettings, console: Console) -> Mapping[str, Any] | None:
        """Write one network of a run as a file of its own.

        An ONNX file is kept only if ONNX Runtime gives the same results as PyTorch.
        """
        from nas.deliver import run

        return run(settings, console)
