"""The study: what is recorded is read back equal; anything else is refused in one line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import METRICS, filled, one_line, spawn

from nas.study import MetricSpec, Study, load_study
from nas.study_storage import locate
from search_spaces.arch import Arch
from search_spaces.errors import InputError
from supernets.files import Busy


def test_what_is_recorded_is_read_back_equal(tmp_path: Path) -> None:
    with filled(tmp_path) as study:
        attrs = {"provenance": {"top1": "measured"}, "macs": np.int64(5), "spread": (1.0, np.float32(2.0))}
        trial = study.record(
            Arch({"k": "dw", "w": 0.5, "d": 4}),
            {"latency": 3, "top1": 71},
            {"latency": 0.0},
            {"depth": (4, 1, 9)},
            attrs,
            seconds=2.5,
        )
        assert trial.number == 3
        assert trial.feasible
        assert trial.attrs == {"provenance": {"top1": "measured"}, "macs": 5, "spread": [1.0, 2.0]}
        study.set_attr("chosen", trial.number)
        trials = study.trials
    for again in (load_study(tmp_path), Study.read(f"sqlite:///{tmp_path}/study.db", "s")):
        assert again.trials == trials
        assert [t.feasible for t in again.trials] == [True, True, False, True]
        assert again.done[trial.arch.digest] == trial
        assert (again.metrics, again.constraints) == (METRICS, ("latency",))
        assert again.attrs == {"space": "vit", "chosen": 3}
    frame = again.frame()
    assert list(frame)[:6] == ["number", "top1 (%)", "latency (ms)", "feasible", "digest", "arch"]
    assert frame["latency (ms)"].tolist() == [5.0, 6.0, 7.0, 3.0]
    assert frame["attrs.provenance.top1"].tolist()[3] == "measured"
    assert frame["constraints.latency"].tolist() == [-1.5, -0.5, 0.5, 0.0]
    assert [Arch.from_json(text) for text in frame["arch"]] == [t.arch for t in trials]


def test_empty_study_has_an_empty_frame(tmp_path: Path) -> None:
    with Study.create(tmp_path / "study.db", "s", METRICS) as study:
        assert list(study.frame()) == ["number", "top1 (%)", "latency (ms)", "feasible", "digest", "arch"]
        assert study.trials == []


def test_an_arch_is_recorded_once(tmp_path: Path) -> None:
    with filled(tmp_path) as study:
        again = study.record(Arch({"depth": 1}), {"top1": 1.0, "latency": 1.0}, {"latency": 0.0})
        assert again is study.trials[1]
    with Study.open(tmp_path) as study:
        assert study.record(Arch({"depth": 2}), {"top1": 1.0, "latency": 1.0}, {"latency": 0.0}).number == 2
        assert len(study.trials) == 3
        assert study.record(Arch({"depth": 9}), {"top1": 1.0, "latency": 1.0}, {"latency": 0.0}).number == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_only_finite_numbers_are_recorded(tmp_path: Path, bad: float) -> None:
    good = {"top1": 1.0, "latency": 1.0}
    arch = Arch({"depth": 100})
    with filled(tmp_path) as study:
        with pytest.raises(ValueError, match=r"'latency' is .*finite"):
            study.record(arch, {**good, "latency": bad}, {"latency": 0.0})
        with pytest.raises(ValueError, match="constraint 'latency'"):
            study.record(arch, good, {"latency": bad})
        with pytest.raises(ValueError, match="summary 'depth'"):
            study.record(arch, good, {"latency": 0.0}, {"depth": (bad, 0, 9)})
        with pytest.raises(ValueError, match="attribute 'p95'"):
            study.record(arch, good, {"latency": 0.0}, attrs={"p95": bad})
    assert len(load_study(tmp_path).trials) == 3


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    arch = Arch({"depth": 100})
    with filled(tmp_path) as study:
        with pytest.raises(ValueError, match="did you mean 'latency'"):
            study.record(arch, {"top1": 1.0, "latenci": 1.0}, {"latency": 0.0})
        with pytest.raises(ValueError, match="value 'top1' is missing"):
            study.record(arch, {"latency": 1.0}, {"latency": 0.0})
        with pytest.raises(ValueError, match="constraint 'latency' is missing"):
            study.record(arch, {"top1": 1.0, "latency": 1.0})
        with pytest.raises(ValueError, match="attribute 'digest' is the study's own"):
            study.record(arch, {"top1": 1.0, "latency": 1.0}, {"latency": 0.0}, attrs={"digest": "0"})
        with pytest.raises(ValueError, match="attribute 'x' cannot be kept as JSON"):
            study.set_attr("x", object())
        assert len(study.trials) == 3


def test_optuna_and_the_dashboard_see_the_constraints(tmp_path: Path) -> None:
    with filled(tmp_path):
        pass
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/study.db")
    assert study.metric_names == ["top1 (%)", "latency (ms)"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [t.number for t in study.best_trials] == [0, 1]  # trial 2 has the best top1 but is infeasible
    assert study.trials[2].constraints["latency"] == 0.5
    assert study.trials[2].system_attrs["constraints"] == [0.5]


def test_failures_take_a_number_only(tmp_path: Path) -> None:
    with filled(tmp_path) as study:
        study.record_failure(Arch({"depth": 7}), "out of memory", seconds=3)
        assert Arch({"depth": 7}).digest not in study.done
        assert study.record(Arch({"depth": 8}), {"top1": 1, "latency": 1}, {"latency": 0}).number == 4
        trials = study.trials
    assert load_study(tmp_path).trials == trials


NAMES = [
    "../x",
    "'; drop table trials; --",
    "<script>alert(1)</script>",
    "搜索 🎉",
    "{SCHEMA_VERSION} %s %(a)s",
    " ",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_archs_are_data(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a ?#%20{x}&'é"
    folder.mkdir()
    metric = MetricSpec(name, name, "maximize")
    with Study.create(folder / "study.db", name, [metric], [name], {name: name}) as study:
        study.record(Arch({name: name}), {name: 1.0}, {name: 0.0}, {name: (1, 0, 2)}, {name: name})
        study.note(name)
        study.note_trial(0, name)
        trials = study.trials
    study = load_study(folder)
    assert (study.name, study.trials, study.attrs) == (name, trials, {name: name})
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name]
    with pytest.raises(InputError, match="exists in"):
        Study.create(folder / "study.db", name, [metric])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
    number=st.floats(-1e9, 1e9),
)
def test_any_text_survives(shared: Study, text: str, number: float) -> None:
    trial = shared.record(
        Arch({text: text, "n": number}), {"m": number}, attrs={"t": text, text + "!": number}
    )
    assert Study.read(shared.location.path or "").trials[trial.number] == trial  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.create(tmp_path_factory.mktemp("any") / "study.db", "s", [MetricSpec("m", "", "minimize")])


@pytest.mark.parametrize("name", ["", "a\nb", "\x00", "\ud800", "x" * 513])
def test_impossible_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as error:
        Study.create(tmp_path / "study.db", name, METRICS)
    one_line(error.value)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_in_the_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="direction 'max'"):
        MetricSpec("a", "", "max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no metric"):
        Study.create(tmp_path / "study.db", "s", [])
    with pytest.raises(InputError, match="'top1' is given twice"):
        Study.create(tmp_path / "study.db", "s", [METRICS[0], METRICS[0]])
    with filled(tmp_path):
        pass
    with pytest.raises(InputError, match=r"has metrics \[maximize top1 .*not \[maximize top1 \(%\)\]"):
        Study.open(tmp_path, metrics=METRICS[:1])
    with pytest.raises(InputError, match=r"constraints \[latency\], not \[macs\]"):
        Study.open(tmp_path, constraints=["macs"])
    Study.open(tmp_path, metrics=METRICS, constraints=["latency"]).close()  # the refusals let go of the lock


def test_several_studies_in_one_database(tmp_path: Path) -> None:
    filled(tmp_path).close()
    Study.create(tmp_path, "t", METRICS).close()
    assert [len(Study.read(tmp_path, name).trials) for name in "st"] == [3, 0]
    with pytest.raises(InputError, match=r"holds 2 studies.*'s', 't'"):
        load_study(tmp_path)
    with pytest.raises(InputError, match="no study 'u'"):
        Study.open(tmp_path, "u")


def test_a_reader_and_a_closed_study_record_nothing(tmp_path: Path) -> None:
    closed = filled(tmp_path)
    closed.close()
    for study in (closed, load_study(tmp_path)):
        with pytest.raises(RuntimeError, match="open it to record"):
            study.record(Arch({"depth": 50}), {"top1": 1.0, "latency": 1.0}, {"latency": 0.0})
        with pytest.raises(RuntimeError, match="open it to record"):
            study.note("x")


def test_artifacts_are_replaced_by_name(tmp_path: Path) -> None:
    file = tmp_path / "front.csv"
    with filled(tmp_path) as study:
        file.write_text("a")
        first = study.attach(file)
        file.write_text("bb")
        assert study.attach(file) == first
        assert study.attach(file, "copy.csv") != first
        assert (tmp_path / "artifacts" / first).read_text() == "bb"
        for name in ("../x", "a/b", "..", "a\\b", "", "a\0"):
            with pytest.raises(InputError):
                study.attach(file, name)
        with pytest.raises(FileNotFoundError):
            study.attach(tmp_path / "nowhere.csv")
    assert len(list((tmp_path / "artifacts").iterdir())) == 2


def test_notes_and_figures_name_what_is_wrong(tmp_path: Path) -> None:
    import plotly.graph_objects as go

    with filled(tmp_path) as study:
        with pytest.raises(InputError, match="has no trial 12"):
            study.note_trial(12, "x")
        with pytest.raises(InputError, match="figure id 'a b'"):
            study.graph("a b", go.Figure())
        study.graph("hypervolume", go.Figure(go.Scatter(x=[1], y=[2])))


def test_database_is_durable_and_readable_when_closed(tmp_path: Path) -> None:
    with filled(tmp_path) as study, study._storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    assert not (tmp_path / "study.db-wal").exists()


def test_optuna_is_quiet_for_us_and_as_before_for_others(tmp_path: Path) -> None:
    code = (
        "import sys, optuna, nas.study as n; level = optuna.logging.get_verbosity();"
        "s = n.Study.create(sys.argv[1], 's', [n.MetricSpec('a', '', 'minimize')]); s.note('x');"
        "s.close(); assert optuna.logging.get_verbosity() == level; optuna.create_study()"
    )
    process = spawn("-c", code, str(tmp_path / "study.db"))
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, len(errors.splitlines())) == (0, "", 1), (
        errors
    )  # only the user's own study


def test_import_is_light() -> None:
    heavy = {"optuna", "sqlalchemy", "pandas", "plotly"}
    code = f"import sys, nas.study; bad = {heavy} & set(sys.modules); assert not bad, bad"
    process = spawn("-c", code)
    assert process.wait(timeout=60) == 0, process.communicate()[1]


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sqlite://", "is not a file"),
        ("sqlite:///:memory:", "is not a file"),
        ("mysql://u@h/d", "mysql:// is not supported"),
        ("://", "is not a database URL"),
    ],
)
def test_other_storages_are_refused(storage: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        Study.open(storage)
    one_line(error.value)


def test_a_password_is_never_shown() -> None:
    assert "secret" not in str(locate("postgresql://nas:secret@host/db"))


@pytest.mark.skipif(
    "NAS_TEST_POSTGRES" not in os.environ, reason="set NAS_TEST_POSTGRES to the URL of an empty database"
)
def test_postgresql(tmp_path: Path) -> None:
    url = os.environ["NAS_TEST_POSTGRES"]
    name = f"'; drop <b> {time.time_ns()}"
    with Study.create(url, name, METRICS, ("latency",)) as study:
        for i in range(3):
            study.record(
                Arch({"depth": i}),
                {"top1": 70.0 + i, "latency": 5.0},
                {"latency": i - 1.5},
                {"depth": (i, 0, 3)},
            )
        with pytest.raises(Busy, match="in use by another process"):
            Study.open(url, name)
        with pytest.raises(InputError, match="no folder for artifacts"):
            study.attach(Path(__file__))
        trials = study.trials
    with Study.open(url, name, metrics=METRICS, artifacts=tmp_path) as study:
        assert study.trials == trials
        study.attach(Path(__file__))
    assert Study.read(url, name).trials == trials
