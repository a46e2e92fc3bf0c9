"""The record of a search: one trial per evaluated arch, in an Optuna study that a kill cannot damage.

    with Study.create("runs/jetson/study.db", "jetson", metrics, constraints=("latency",)) as study:
        if arch.digest not in study.done:
            study.record(arch, {"top1": 76.2, "latency": 7.9}, {"latency": -0.1})
    load_study("runs/jetson").frame()

One process owns a study; workers evaluate, the owner records. A trial is one transaction: there whole or
absent. Optuna's parameters are a few summary numbers, the arch is JSON in an attribute: with one parameter
per decision, recording takes two to three times as long and the dashboard is slow at 1,000 trials.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nas import study_page
from nas.study_storage import (
    Location,
    Mode,
    Storage,
    check_database,
    choose,
    close_storage,
    drop_unfinished,
    locate,
    open_storage,
    own,
    plain_errors,
    quiet,
)
from nas.trial import (
    RESERVED,
    MetricSpec,
    Trial,
    check_names,
    check_text,
    finite,
    freeze,
    freeze_failure,
    json_attrs,
    thaw,
)
from search_spaces.arch import Arch
from search_spaces.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

__all__ = ["MetricSpec", "Study", "Trial", "load_study"]

FORMAT = 1  # of what a study holds; the last thing that `create` writes
OURS = ("metrics", "constraints", "format")  # study attributes


class Study:
    """A study and its trials.

    Made by `create`, `open` (both own it until `close` or the end of the process) or `read`. Guarantees: a
    trial that `record` returned is on disk; an arch is recorded once; a trial never changes. For one thread.
    """

    def __init__(
        self,
        storage: RDBStorage,
        location: Location,
        name: str,
        artifacts: Path | None,
        mode: Mode,
    ) -> None:
        """Use `create`, `open` or `read`."""
        import optuna

        self.name = name
        self.location = location
        beside = location.path.parent / "artifacts" if location.path is not None else None
        self.artifacts = artifacts or beside
        self._storage = storage
        self._owned: ExitStack | None = None  # what `close` undoes; None for a reader
        with quiet(), plain_errors(location):
            sampler = optuna.samplers.RandomSampler(seed=0)
            self._study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
            attrs = self._study.user_attrs
            if attrs.get("format") != FORMAT:
                raise InputError(
                    f"study {name!r} in {location} is not of nas search, or its creation was interrupted; "
                    "create it again or give another name"
                )
            self.metrics = tuple(MetricSpec(**spec) for spec in attrs["metrics"])
            self.constraints = tuple(str(c) for c in attrs["constraints"])
            if mode == "write":
                self._fail_running()
            frozen = self._study.get_trials(deepcopy=False)
        self._attrs = {k: v for k, v in attrs.items() if k not in OURS}
        self._count = len(frozen)
        self._inode = location.path.stat().st_ino if location.path is not None else None
        self._trials: list[Trial] = []
        self._done: dict[str, Trial] = {}
        for trial in frozen:
            if trial.state.name == "COMPLETE":
                self._remember(thaw(trial, self.metrics, self.constraints))

    @classmethod
    def create(
        cls,
        storage: Storage,
        name: str,
        metrics: Sequence[MetricSpec],
        constraints: Sequence[str] = (),
        attrs: Mapping[str, object] | None = None,
        *,
        artifacts: Path | None = None,
    ) -> Study:
        """A new study, owned by this process. `artifacts` defaults to a folder beside a SQLite file.

        Raises:
            InputError: the study exists, or the name or the metrics cannot be used.
            Busy: another process owns the database.
            OSError: the folder is missing or not writable.
        """
        import optuna

        check_text("study name", name)
        check_names("metric", [m.name for m in metrics])
        check_names("constraint", constraints)
        if not metrics:
            raise InputError(f"study {name!r} has no metric; give at least one")
        given = json_attrs(attrs or {}, OURS)
        location = locate(storage)
        with ExitStack() as stack:
            stack.enter_context(own(location, name))
            if location.path is not None and location.path.exists() and location.path.stat().st_size:
                check_database(location, "write")
            backend = open_storage(location, "create")
            stack.callback(close_storage, backend)
            with quiet(), plain_errors(location):
                drop_unfinished(backend, name, "format")
                try:
                    study = optuna.create_study(
                        study_name=name, storage=backend, directions=[m.direction for m in metrics]
                    )
                except optuna.exceptions.DuplicatedStudyError:
                    raise InputError(
                        f"study {name!r} exists in {location}; resume it, or give another name"
                    ) from None
                study.set_metric_names([m.label for m in metrics])
                for key, value in given.items():
                    study.set_user_attr(key, value)
                study.set_user_attr("metrics", [asdict(m) for m in metrics])
                study.set_user_attr("constraints", list(constraints))
                study.set_user_attr("format", FORMAT)
            self = cls(backend, location, name, artifacts, "create")
            self._owned = stack.pop_all()
            return self

    @classmethod
    def open(
        cls,
        storage: Storage,
        name: str | None = None,
        *,
        metrics: Sequence[MetricSpec] | None = None,
        constraints: Sequence[str] | None = None,
        artifacts: Path | None = None,
    ) -> Study:
        """An existing study, owned by this process, to go on recording.

        `name` may be left out when the database holds one study; `metrics` and `constraints` are compared.
        Trials that a killed owner left running are marked as failed.

        Raises:
            InputError: no such study, a damaged database, or other metrics or constraints than given here.
            Busy: another process owns it.
            OSError: the database cannot be read or written.
        """
        location = locate(storage)
        check_database(location)  # before the lock, which would leave its file beside a mistyped path
        with ExitStack() as stack:
            stack.enter_context(own(location, name))
            check_database(location, "write")
            self = cls._load(location, name, "write", artifacts, stack)
            if metrics is not None:
                _same(self, "metrics", _told(self.metrics), _told(metrics))
            if constraints is not None:
                _same(self, "constraints", ", ".join(self.constraints), ", ".join(constraints))
            self._owned = stack.pop_all()
            return self

    @classmethod
    def read(cls, storage: Storage, name: str | None = None, *, artifacts: Path | None = None) -> Study:
        """An existing study as it stands now, to look at: takes no lock, so that its search may be running.

        Raises:
            InputError: no such study, or a damaged database.
            OSError: the database cannot be read.
        """
        location = locate(storage)
        check_database(location)
        with ExitStack() as stack:
            return cls._load(location, name, "read", artifacts, stack)

    @classmethod
    def _load(
        cls, location: Location, name: str | None, mode: Mode, artifacts: Path | None, stack: ExitStack
    ) -> Study:
        backend = open_storage(location, mode)
        stack.callback(close_storage, backend)
        chosen = choose(backend, location, name)
        return cls(backend, location, chosen, artifacts, mode)

    def _fail_running(self) -> None:
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)

    # Reading

    @property
    def trials(self) -> list[Trial]:
        """All recorded trials, in order."""
        return list(self._trials)

    @property
    def done(self) -> Mapping[str, Trial]:
        """The trial of each recorded arch, by its digest. A live view."""
        return MappingProxyType(self._done)

    @property
    def attrs(self) -> dict[str, Any]:
        """What `create` and `set_attr` stored with the study."""
        return dict(self._attrs)

    def frame(self) -> pd.DataFrame:
        """One row per trial: number, values as "latency (ms)", feasible, digest, arch (JSON).

        Then what else is known, as "constraints.latency", "summary.depth", "attrs.macs"; nested ones alike.
        """
        import pandas as pd

        rows = []
        for t in self._trials:
            row: dict[str, object] = {"number": t.number}
            row |= {m.label: t.values[m.name] for m in self.metrics}
            row |= {"feasible": t.feasible, "digest": t.arch.digest, "arch": t.arch.to_json()}
            groups = {"constraints": t.constraints, "summary": t.summary, "attrs": t.attrs}
            rows.append(row | {k: v for k, v in groups.items() if v})
        if not rows:
            return pd.DataFrame(
                columns=["number", *(m.label for m in self.metrics), "feasible", "digest", "arch"]
            )
        return pd.json_normalize(rows)

    # Recording

    def record(
        self,
        arch: Arch,
        values: Mapping[str, float],
        constraints: Mapping[str, float] | None = None,
        summary: Mapping[str, tuple[float, float, float]] | None = None,
        attrs: Mapping[str, object] | None = None,
        *,
        seconds: float = 0.0,
    ) -> Trial:
        """The trial of `arch`, on disk when this returns. An arch that is recorded already keeps its trial.

        `values` by metric name; `constraints` by name, feasible at <= 0; `summary` by name as (value, lowest,
        highest); `attrs` anything JSON can hold; `seconds` that the evaluation took, for the timeline.

        Raises:
            ValueError: a name missing or unknown, a value NaN or infinite, an attribute that is not JSON.
            OSError: disk full, or the database is gone; nothing that was recorded before is lost.
        """
        if arch.digest in self._done:
            return self._done[arch.digest]
        lean, bounds = {}, {}
        for key, (x, low, high) in (summary or {}).items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= x <= high):
                raise ValueError(f"summary {key!r} = {x} is not a number in [{low}, {high}]")
            lean[key], bounds[key] = float(x), (float(low), float(high))
        trial = Trial(
            number=self._count,
            arch=arch,
            values=finite("value", values, [m.name for m in self.metrics]),
            constraints=finite("constraint", constraints or {}, self.constraints),
            summary=lean,
            attrs=json_attrs(attrs or {}, RESERVED),
        )
        self._add(freeze(trial, bounds, seconds))
        return self._remember(trial)

    def record_failure(self, arch: Arch, reason: str, *, seconds: float = 0.0) -> None:
        """Record that evaluating `arch` failed. It takes a number but stays out of `trials` and `done`."""
        self._add(freeze_failure(arch, reason, seconds))

    def _add(self, frozen: FrozenTrial) -> None:
        with self._writing():
            self._study.add_trial(frozen)
        self._count += 1

    def _remember(self, trial: Trial) -> Trial:
        self._trials.append(trial)
        return self._done.setdefault(trial.arch.digest, trial)

    def set_attr(self, name: str, value: object) -> None:
        """Store `value` with the study, replacing what `name` held. Raises ValueError when it is not JSON."""
        stored = json_attrs({name: value}, OURS)[name]
        with self._writing():
            self._study.set_user_attr(name, stored)
        self._attrs[name] = stored

    def note(self, markdown: str) -> None:
        """Write the study's note on the dashboard, replacing the last one."""
        with self._writing():
            study_page.note(self._study, markdown)

    def note_trial(self, number: int, markdown: str) -> None:
        """Write the note of one trial on the dashboard. Raises InputError when there is no such trial."""
        with self._writing():
            study_page.note_trial(self._study, self._storage, number, markdown)

    def graph(self, graph_id: str, figure: go.Figure) -> None:
        """Show a Plotly figure on the study's page; the same id (letters, digits, - _ : .) replaces it."""
        with self._writing():
            study_page.graph(self._study, graph_id, figure)

    def attach(self, path: Path | str, name: str | None = None) -> str:
        """Copy a file into the study's artifacts, listed on its page as `name`, and return its id.

        The same name replaces what it held. Raises InputError for a name with a path in it.
        """
        with self._writing():
            if self.artifacts is None:
                raise InputError(f"study {self.name!r} has no folder for artifacts; open it with one")
            return study_page.attach(self._study, self.artifacts, Path(path), name)

    def close(self) -> None:
        """Give the study up: close the database, drop the lock."""
        if self._owned is not None:
            self._owned.close()
            self._owned = None

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Around every write: this process owns the study, its file is there, errors are plain."""
        if self._owned is None:
            raise RuntimeError(f"study {self.name!r} is closed or was opened to read; open it to record")
        self._still_there()
        with quiet(), plain_errors(self.location):
            yield

    def _still_there(self) -> None:
        """SQLite would go on writing to a deleted file, and everything would be lost at the end."""
        path = self.location.path
        if path is None:
            return
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "the study was deleted while it was in use", str(path))
        if path.stat().st_ino != self._inode:
            raise FileNotFoundError(errno.ENOENT, "the study was replaced while it was in use", str(path))


def load_study(storage: Storage, name: str | None = None) -> Study:
    """The study in a run folder, a SQLite file or a database URL, to read: `load_study("runs/a").frame()`."""
    return Study.read(storage, name)


def read_study(folder: Path, record: Mapping[str, Any]) -> Study:
    """The study of the run in `folder`, to read: in the database that its record names, or beside it."""
    storage = record["settings"]["storage"]
    return Study.read(storage or folder / "study.db", folder.name if storage else None)


def _told(metrics: Sequence[MetricSpec]) -> str:
    return ", ".join(f"{m.direction} {m.label}" for m in metrics)


def _same(study: Study, what: str, stored: str, asked: str) -> None:
    if asked != stored:
        raise InputError(
            f"study {study.name!r} has {what} [{stored}], not [{asked}]; resume with the same ones"
        )
