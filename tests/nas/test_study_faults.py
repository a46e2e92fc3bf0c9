"""The study under faults: kills, second owners, damaged or deleted files, full disks."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from recorded import METRICS, filled, one_line, spawn

from nas.study import Study, load_study
from search_spaces.arch import Arch
from search_spaces.errors import InputError
from supernets.files import Busy

WRITER = """
import random, sys
from nas.study import MetricSpec, Study
from search_spaces.arch import Arch
metrics = (MetricSpec("top1", "%", "maximize"), MetricSpec("latency", "ms", "minimize"))
path = sys.argv[1]
with Study.open(path, metrics=metrics) as study:
    study._study.ask()  # left running by the kill
    print("open", flush=True)
    draw = random.Random(0)  # the same archs after every start: none may be recorded twice
    while True:
        arch = Arch({"depth": draw.randrange(1000), "width": draw.random()})
        summary = {"depth": (arch["depth"], 0, 1000)}
        study.record(arch, {"top1": 70.0, "latency": 5.0}, {"latency": -1.0}, summary, {"macs": 7})
        print(arch.digest, flush=True)
"""


def test_second_owner_is_refused_by_name_and_pid(tmp_path: Path) -> None:
    with filled(tmp_path) as study:
        writer = spawn("-c", WRITER, str(tmp_path))
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode != 0
        assert f"is in use by pid {os.getpid()}" in errors.splitlines()[-1]
        assert "Busy" in errors.splitlines()[-1]
        with pytest.raises(Busy, match=r"study 's' in .* in use"):
            Study.open(tmp_path, "s")
        assert load_study(tmp_path).trials == study.trials  # a reader needs no lock
    Study.open(tmp_path).close()


def test_kill_leaves_whole_trials_and_no_duplicates(tmp_path: Path) -> None:
    Study.create(tmp_path / "study.db", "s", METRICS, ("latency",)).close()
    told: set[str] = set()
    for i in range(3):
        writer = spawn("-c", WRITER, str(tmp_path))
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n", writer.communicate()[1]
        time.sleep(0.4 + 0.13 * i)
        writer.send_signal(signal.SIGKILL)
        out, _ = writer.communicate()
        told |= set(out.split())
    with Study.open(tmp_path) as study:
        digests = [t.arch.digest for t in study.trials]
        assert len(digests) == len(set(digests)) > 10
        assert told <= set(digests)  # what record() returned is on disk
        assert all(t.attrs == {"macs": 7} and set(t.summary) == {"depth"} for t in study.trials)
        assert all(t.constraints == {"latency": -1.0} and len(t.values) == 2 for t in study.trials)
    states = [
        t.state.name
        for t in optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/study.db").trials
    ]
    assert states.count("FAIL") == 3
    assert set(states) == {"COMPLETE", "FAIL"}


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : len(data) : 7] = b"x" * len(data[4096 : len(data) : 7])
    path.write_bytes(bytes(data))


def foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("damage", [garbage, empty, truncated, overwritten, foreign, Path.unlink])
def test_damaged_database_is_refused_and_left_alone(tmp_path: Path, damage: object) -> None:
    filled(tmp_path).close()
    path = tmp_path / "study.db"
    damage(path)  # type: ignore[operator]
    before = path.read_bytes() if path.exists() else None
    for use in (Study.open, Study.read, load_study):
        with pytest.raises(InputError) as error:
            use(path)
        assert str(path) in one_line(error.value)
    assert (path.read_bytes() if path.exists() else None) == before


def test_places_where_no_study_can_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study at"):
        Study.open(tmp_path / "nowhere" / "study.db")
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind
    with pytest.raises(FileNotFoundError, match="create it first"):
        Study.create(tmp_path / "nowhere" / "study.db", "s", METRICS)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError):
        Study.create(tmp_path / "file" / "study.db", "s", METRICS)


def test_interrupted_creation_is_made_good(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    optuna.create_study(study_name="s", storage=f"sqlite:///{path}", directions=["minimize"])
    with pytest.raises(InputError, match="interrupted"):
        Study.open(path)
    with Study.create(path, "s", METRICS) as study:
        assert study.trials == []


def test_a_study_of_someone_else_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{path}")
    study.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(InputError, match="exists"):
        Study.create(path, "s", METRICS)
    assert len(study.trials) == 1


def test_schema_of_another_optuna_is_refused(tmp_path: Path) -> None:
    filled(tmp_path).close()
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    connection.close()
    for use in (Study.open, Study.read):
        with pytest.raises(InputError, match=r"another Optuna version.*storage upgrade") as error:
            use(tmp_path)
        one_line(error.value)


@pytest.mark.parametrize("replaced", [False, True])
def test_deleted_database_is_noticed(tmp_path: Path, replaced: bool) -> None:
    with filled(tmp_path) as study:
        path = tmp_path / "study.db"
        data = path.read_bytes()
        path.rename(tmp_path / "moved.db")
        if replaced:
            path.write_bytes(data)
        with pytest.raises(FileNotFoundError, match="was replaced" if replaced else "was deleted") as error:
            study.record(Arch({"depth": 50}), {"top1": 1.0, "latency": 1.0}, {"latency": 0.0})
        one_line(error.value)


def record_many(study: Study, start: int, size: int) -> None:
    for i in range(start, start + 500):
        values = {"top1": 1.0, "latency": 1.0}
        study.record(Arch({"depth": i}), values, {"latency": 0.0}, attrs={"x": "y" * size})


def test_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)  # Optuna waits up to 2 s before each of its retries
    with filled(tmp_path) as study:
        engine = study._storage.engine
        with engine.connect() as connection:
            limit = int(connection.exec_driver_sql("PRAGMA page_count").scalar() or 0) + 4

        def connected(raw: sqlite3.Connection, _: object) -> None:
            raw.execute(f"PRAGMA max_page_count={limit}")

        sqlalchemy.event.listen(engine, "connect", connected)
        engine.dispose()
        with pytest.raises(OSError, match="disk full while writing the study; what was rec") as error:
            record_many(study, 50, 900)
        assert error.value.errno == errno.ENOSPC
        one_line(error.value)
        kept = study.trials
        assert load_study(tmp_path).trials == kept
        limit = 100_000
        engine.dispose()
        study.record(Arch({"depth": 10_000}), {"top1": 1.0, "latency": 1.0}, {"latency": 0.0})
        kept = study.trials
    assert load_study(tmp_path).trials == kept


def test_file_size_limit_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with filled(tmp_path) as study:
        wal = (tmp_path / "study.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 100_000, hard))
        try:
            with pytest.raises(OSError, match="what was recorded is kept"):
                record_many(study, 50, 900)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        study.record(Arch({"depth": 10_000}), {"top1": 1.0, "latency": 1.0}, {"latency": 0.0})
        kept = study.trials
    assert load_study(tmp_path).trials == kept
