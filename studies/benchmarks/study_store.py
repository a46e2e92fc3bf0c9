"""How long it takes to record a trial in a study, as the study grows; and to read the study again.

    python studies/benchmarks/study_store.py

Writes study_store.csv beside this file: one row per study size, with the median, 20th and 80th percentile of
the last 100 recordings up to that size. A trial has two metrics, one constraint, six summary numbers, an arch
of 46 choices and its provenance; each is one durable transaction (SQLite in WAL mode, synchronous=FULL).
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from record import save

from nas.study import MetricSpec, Study, load_study
from search_spaces.arch import Arch

SIZES = (100, 1_000, 5_000)
METRICS = (MetricSpec("top1", "%", "maximize"), MetricSpec("latency", "ms", "minimize"))
SUMMARY = ("depth", "width", "kernel", "expansion", "resolution", "macs")


def record_one(study: Study, rng: random.Random) -> float:
    """Milliseconds to record one random arch."""
    arch = Arch({f"block{i}.kernel": rng.choice((3, 5, 7)) for i in range(45)} | {"id": rng.random()})
    summary = {name: (rng.random(), 0.0, 1.0) for name in SUMMARY}
    attrs = {"provenance": {"top1": "measured", "latency": "estimated"}, "macs": rng.randrange(10**9)}
    start = time.perf_counter()
    study.record(arch, {"top1": rng.random(), "latency": rng.random()}, {"latency": -1.0}, summary, attrs)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    rng = random.Random(0)
    rows = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "study.db"
        with Study.create(path, "benchmark", METRICS, ("latency",)) as study:
            for size in SIZES:
                times = [record_one(study, rng) for _ in range(size - len(study.trials))][-100:]
                start = time.perf_counter()
                assert len(load_study(path).trials) == size
                read_s = time.perf_counter() - start
                cuts = statistics.quantiles(times, n=10)
                rows.append(
                    {
                        "trials": size,
                        "record_ms_median": round(statistics.median(times), 2),
                        "record_ms_p20": round(cuts[1], 2),
                        "record_ms_p80": round(cuts[7], 2),
                        "read_all_s": round(read_s, 2),
                        "database_mb": round(
                            sum(p.stat().st_size for p in path.parent.glob("study.db*")) / 1e6, 1
                        ),
                        "sqlite": sqlite3.sqlite_version,
                    }
                )
    save(__file__, rows, ("optuna", "sqlalchemy"))


if __name__ == "__main__":
    main()
