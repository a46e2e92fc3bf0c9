"""What a study shows on its dashboard page beside its trials: notes, figures and files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nas.trial import check_text
from search_spaces.errors import InputError
from supernets.files import atomic_write

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from optuna import Study
    from optuna.storages import RDBStorage


def note(study: Study, markdown: str) -> None:
    """The note of `study` becomes `markdown`."""
    from optuna_dashboard import save_note

    save_note(study, markdown)


def note_trial(study: Study, storage: RDBStorage, number: int, markdown: str) -> None:
    """The note of the trial `number` becomes `markdown`. Raises InputError when there is no such trial."""
    import optuna
    from optuna_dashboard import save_note

    study_id = storage.get_study_id_from_name(study.study_name)
    try:
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
    except KeyError:
        raise InputError(f"study {study.study_name!r} has no trial {number}") from None
    save_note(optuna.trial.Trial(study, trial_id), markdown)


def graph(study: Study, graph_id: str, figure: go.Figure) -> None:
    """`figure` is shown under `graph_id`. Raises InputError when the id is not letters, digits or - _ : ."""
    from optuna_dashboard import save_plotly_graph_object

    try:
        save_plotly_graph_object(study, figure, graph_object_id=graph_id)
    except ValueError as error:
        raise InputError(f"figure id {graph_id!r}: {error}; use letters, digits and - _ : .") from None


def attach(study: Study, folder: Path, path: Path, name: str | None) -> str:
    """A copy of the file `path` in `folder`, listed as `name`; its id. The same name keeps its id.

    Raises:
        InputError: `name` is not a plain file name.
        OSError: the file cannot be read, or the folder not written.
    """
    from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

    shown = path.name if name is None else name
    check_text("artifact name", shown)
    if shown in (".", "..") or "/" in shown or "\\" in shown:
        raise InputError(f"artifact name {shown!r} is not a plain file name")
    content = path.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    for meta in get_all_artifact_meta(study):
        if meta.filename == shown:
            atomic_write(folder / meta.artifact_id, content)
            return meta.artifact_id
    with tempfile.TemporaryDirectory() as scratch:  # Optuna lists the name of the file that it is given
        link = Path(scratch) / shown
        link.symlink_to(path.absolute())
        store = FileSystemArtifactStore(folder)
        return upload_artifact(artifact_store=store, file_path=str(link), study_or_trial=study)
