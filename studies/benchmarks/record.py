"""The rows of a benchmark: shown as a table, and written as CSV with what they were measured on."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from predictors.machine import cpu_title

_LOAD = os.getloadavg()[0]  # of others: read before the benchmark itself adds to it


def figure(
    name: str, values: float | Sequence[float], unit: str = "", *, bar: float | None = None
) -> dict[str, Any]:
    """One row: the median of `values` with 20th and 80th percentile, and whether it is within `bar`.

    `bar` is the most that the median may be.
    """
    values = [values] if isinstance(values, (int, float)) else list(values)
    low, high = quantiles(values, n=5, method="inclusive")[::3] if len(values) > 1 else (None, None)
    middle = median(values)
    return {
        "figure": name,
        "median": _short(middle),
        "p20": _short(low),
        "p80": _short(high),
        "unit": unit,
        "n": len(values),
        "bar": "" if bar is None else f"<= {bar:g}",
        "kept": "" if bar is None else "yes" if middle <= bar else "NO",
    }


def save(
    script: str, rows: Iterable[Mapping[Any, Any]], packages: Sequence[str] = (), *, keep: bool = True
) -> None:
    """Prints the rows and writes them beside `script` (its `__file__`), with the versions of `packages`.

    Without `keep` nothing is written: rows of a smoke run are no results.
    """
    rows = list(rows)
    circumstances = {
        "date": date.today().isoformat(),
        "machine": cpu_title(),
        "cores": os.cpu_count(),
        "load_1min": round(_LOAD, 1),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
    print(", ".join(f"{name} {value}" for name, value in circumstances.items()))
    widths = {name: max(len(str(row[name])) for row in [*rows, {name: name}]) for name in rows[0]}
    for row in [dict.fromkeys(rows[0]) | {name: name for name in rows[0]}, *rows]:
        print("  ".join(f"{row[name]!s:<{width}}" for name, width in widths.items()).rstrip())
    if not keep:
        return
    with Path(script).with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *circumstances])
        writer.writeheader()
        writer.writerows({**row, **circumstances} for row in rows)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
