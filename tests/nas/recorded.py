"""A study with a few trials, and what its tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nas.study import MetricSpec, Study
from search_spaces.arch import Arch

METRICS = (MetricSpec("top1", "%", "maximize"), MetricSpec("latency", "ms", "minimize"))
ROOT = Path(__file__).parents[2]


def spawn(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def filled(folder: Path, n: int = 3) -> Study:
    study = Study.create(folder / "study.db", "s", METRICS, ("latency",), {"space": "vit"})
    for i in range(n):
        study.record(Arch({"depth": i}), {"top1": 70.0 + i, "latency": 5.0 + i}, {"latency": i - 1.5})
    return study


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    return text
