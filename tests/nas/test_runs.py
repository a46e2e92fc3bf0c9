"""Run folders: names that are free, records that say what ran."""

from __future__ import annotations

import json
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.run_record import read_record, saved_settings
from nas.runs import environment, file_name, new_run, versions, write_record
from search_spaces.errors import InputError


def test_automatic_names_count_up(tmp_path: Path) -> None:
    made = [new_run(str(tmp_path / "runs"), None, "train-digits") for _ in range(3)]
    assert [folder.name for folder in made] == ["train-digits", "train-digits-2", "train-digits-3"]
    assert all(folder.is_dir() for folder in made)


def test_two_at_once_get_two_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run(str(tmp_path), None, "a"), range(24)))
    assert len(set(made)) == 24


def test_a_name_is_kept_and_refused_once_it_holds_a_run(tmp_path: Path) -> None:
    folder = new_run(str(tmp_path), "mine", "x")
    assert folder == tmp_path / "mine"
    assert new_run(str(tmp_path), "mine", "x") == folder  # it holds nothing yet
    write_record(folder, {"what": "train"})
    with pytest.raises(InputError, match=f"run {folder} exists; .* nas train --resume {folder}"):
        new_run(str(tmp_path), "mine", "x")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".", "..", ".hidden", "a b", "-x", "a\nb", "/x", "<b>", "';"]
)
def test_a_name_stays_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a folder name"):
        new_run(str(tmp_path / "runs"), name, "x")
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=100))
def test_any_text_gives_a_name_that_can_be_used(text: str) -> None:
    name = file_name(text)
    assert 1 <= len(name) <= 60
    assert "/" not in name
    assert not name.startswith(("-", "."))
    assert name.isprintable()
    assert name not in (".", "..")


def test_a_file_where_the_runs_should_lie(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    for name in (None, "mine"):
        with pytest.raises(NotADirectoryError, match="cannot hold runs"):
            new_run(str(tmp_path / "runs"), name, "x")
        with pytest.raises(NotADirectoryError):
            new_run(str(tmp_path / "runs" / "below"), name, "x")


def test_what_ran_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/nas", "search", "--pick", "accuracy>0.9, latency<2"])
    said = environment()
    assert shlex.split(said["command"]) == ["nas", "search", "--pick", "accuracy>0.9, latency<2"]
    assert {"torch", "numpy", "optuna", "elastic-nas"} <= said["versions"].keys()
    assert said["versions"] == versions()
    assert said["created"].endswith("+00:00")
    json.dumps(said)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = {"what": "train", "settings": {"seed": 3, "name": None, "data": "ä"}}
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert saved_settings(tmp_path, "train")["seed"].value == 3
    with pytest.raises(InputError, match="is a run of 'nas train': it cannot be resumed by 'nas search'"):
        saved_settings(tmp_path, "search")
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        read_record(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no run\.json"):
        read_record(tmp_path / "empty")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b'{"what": "train"}', b'{"what":"train","settings":[]}']
)
def test_a_damaged_record_is_said_to_be_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        saved_settings(tmp_path, "train")


def test_a_record_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="is damaged"):
        read_record(tmp_path)
