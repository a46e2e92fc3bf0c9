"""The study of a search: a new one, or the one that a stopped search left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nas.objectives import Limit, Objective
from nas.run_record import read_record
from nas.runs import write_record
from nas.search_loop import Known
from nas.search_plan import Plan
from nas.study import MetricSpec, Study
from nas.trained import weights_digest
from search_spaces import Arch, InputError, SearchSpace

STUDY, STUDY_FILE = "search", "study.db"


def study_of(made: Plan, folder: Path, objectives: Sequence[Objective], limits: Sequence[Limit]) -> Study:
    """The study of this search: a new one, or the one that a stopped search left.

    Raises:
        InputError: it is damaged, or of another supernet or device.
    """
    settings, record = made.settings, read_record(folder)
    storage = settings.storage or folder / STUDY_FILE
    name = STUDY if settings.storage is None else folder.name
    basis = {
        "supernet": weights_digest(made.supernet_folder),
        "space": made.space.digest,
        "device": made.target.title,
    }
    if record.get("study"):
        return _opened(storage, name, folder, basis)
    if settings.storage is None:
        for rest in folder.glob(f"{STUDY_FILE}*"):  # of a creation that was killed: it holds no trial yet
            if rest.is_file():
                rest.unlink()
    try:
        study = Study.create(
            storage,
            name,
            [MetricSpec(o.name, o.unit, o.direction) for o in objectives],
            [limit.name for limit in limits],
            {
                **basis,
                "target": made.target.describe(),
                "provenance": {o.name: o.provenance.to_dict() for o in objectives},
                "limits": [str(limit) for limit in limits],
            },
            artifacts=folder / "artifacts",
        )
    except InputError:
        if settings.resume is None or settings.storage is None:
            raise
        study = _opened(storage, name, folder, basis)  # killed between these two lines
    write_record(folder, {**record, "study": name})
    return study


def _opened(storage: str | Path, name: str, folder: Path, basis: Mapping[str, str]) -> Study:
    study = Study.open(storage, name, artifacts=folder / "artifacts")
    for key, now in basis.items():
        if study.attrs.get(key) != now:
            study.close()
            raise InputError(
                f"the study of {folder} was made with {key} {study.attrs.get(key)}, not {now}; "
                "start a new search"
            )
    return study


def known_values(
    space: SearchSpace, study: Study, objectives: Sequence[Objective], limits: Sequence[Limit]
) -> dict[bytes, Known]:
    """The recorded values, as the search loop looks them up."""
    rows = space.index([trial.arch for trial in study.trials])
    return {
        row.tobytes(): (
            np.array([trial.values[o.name] for o in objectives]),
            np.array([trial.constraints[limit.name] for limit in limits]),
        )
        for row, trial in zip(rows, study.trials, strict=True)
    }


def summary(space: SearchSpace, arch: Arch) -> dict[str, tuple[float, float, float]]:
    """A few numbers that describe an arch: the mean of each kind of numeric choice, with its bounds.

    "stage1.depth" and "stage2.depth" are of kind "depth". {kind: (value, lowest, highest)}
    """
    kinds: dict[str, list[float]] = {}
    bounds: dict[str, list[float]] = {}
    for choice in space.choices:
        if choice.ordinal:
            kind = choice.name.rpartition(".")[2]
            bounds.setdefault(kind, []).extend(float(o) for o in choice.options)
            if choice.name in arch:
                kinds.setdefault(kind, []).append(float(arch[choice.name]))
    return {
        kind: (sum(values) / len(values), min(bounds[kind]), max(bounds[kind]))
        for kind, values in kinds.items()
    }
