from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supernets import checkpoint, files
from supernets.checkpoint import (
    CheckpointError,
    load_tensors,
    previous,
    save_checkpoint,
    save_tensors,
    settle,
    sidecar,
)

A = {"w": torch.arange(6.0).reshape(2, 3).t(), "n": torch.tensor(7), "e": torch.zeros(0, 3)}
B = {"w": torch.ones(3, 2)}


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, A, {"step": 1})
    save_checkpoint(path, B, {"step": 2})
    return path


def test_tensors_and_meta_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    meta = {"step": 1, "lr": 0.1 + 0.2, "name": "é", "none": None}
    save_tensors(path, A, meta)
    tensors, back = load_tensors(path)
    assert back == meta
    assert tensors.keys() == A.keys()
    assert all(torch.equal(tensors[k], A[k]) and tensors[k].dtype == A[k].dtype for k in A)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.safetensors"]


def test_the_save_before_the_last_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert load_tensors(path)[1] == {"step": 2}
    assert load_tensors(previous(path))[1] == {"step": 1}
    save_checkpoint(path, A, {"step": 3})
    assert [load_tensors(p)[1]["step"] for p in (path, previous(path))] == [3, 2]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda blob: blob[: len(blob) // 2], "damaged"),
        (lambda blob: b"", "damaged"),
        (lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), "damaged"),
        (lambda blob: os.urandom(len(blob)), "damaged"),
        (lambda blob: blob + b"x", "damaged"),
    ],
)
def test_a_damaged_file_is_refused_and_the_one_before_it_named(tmp_path: Path, damage, word: str) -> None:
    path = saved(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        load_tensors(path)
    message = str(caught.value)
    assert word in message
    assert str(previous(path)) in message
    assert "\n" not in message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_in_either_file_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, B, {"step": 12345, "note": "abc"})
    victim = data.draw(st.sampled_from([path, sidecar(path)]))
    blob = bytearray(victim.read_bytes())
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= 1 << data.draw(st.integers(0, 7))
    victim.write_bytes(bytes(blob))
    try:
        tensors, meta = load_tensors(path)
    except CheckpointError:
        return
    assert meta == {"step": 12345, "note": "abc"}  # white space of the JSON file may differ
    assert torch.equal(tensors["w"], B["w"])


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_tensors(path)
    path.write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"has no x\.json"):
        load_tensors(path)
    for text in (
        "",
        "{",
        "[]",
        "null",
        '{"format": "other"}',
        '{"format": "elastic-nas tensors 1"}',
        "[" * 5000,
    ):
        sidecar(path).write_text(text)
        with pytest.raises(CheckpointError):
            load_tensors(path)
    save_tensors(path, B, {})
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        load_tensors(path)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (marker,))

    path = tmp_path / "x.safetensors"
    torch.save({"w": Payload()}, path)
    for blob in (path.read_bytes(), pickle.dumps(Payload())):
        save_tensors(path, B, {})
        record = json.loads(sidecar(path).read_text())
        path.write_bytes(blob)
        import hashlib

        record |= {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
        record["seal"] = checkpoint._seal(record)  # even one that a forger sealed
        sidecar(path).write_text(json.dumps(record))
        with pytest.raises(CheckpointError, match="no safetensors"):
            load_tensors(path)
    assert not marker.exists()


def test_what_json_cannot_hold_is_refused_before_anything_moves(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        save_checkpoint(path, A, {"loss": float("nan")})
    assert [load_tensors(p)[1]["step"] for p in (path, previous(path))] == [2, 1]


@pytest.mark.parametrize("keep", [True, False])
def test_a_kill_between_any_two_disk_operations_leaves_a_whole_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    class Killed(BaseException):
        pass

    whole = False
    for allowed in range(40):
        folder = tmp_path / str(allowed)
        folder.mkdir()
        path = saved(folder)
        if not keep:
            previous(path).unlink()
            sidecar(previous(path)).unlink()
        count = 0

        def operation(real, allowed=allowed):
            def run(*args, **kwargs):
                nonlocal count
                count += 1
                if count > allowed:
                    raise Killed
                return real(*args, **kwargs)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", operation(os.replace))
            patch.setattr(os, "fsync", operation(os.fsync))
            patch.setattr(os, "unlink", operation(os.unlink))  # a killed process tidies nothing
            patch.setattr(files, "_remove", operation(lambda name: None))
            patch.setattr(Path, "unlink", operation(Path.unlink))
            try:
                (save_checkpoint if keep else save_tensors)(path, A, {"step": 3})
                whole = True
            except Killed:
                pass
        step = load_tensors(path)[1]["step"]
        assert step in (2, 3)
        settle(path)
        assert load_tensors(path)[1]["step"] == step
        if keep and step == 3:
            assert load_tensors(previous(path))[1]["step"] == 2
        save_checkpoint(path, B, {"step": 4})
        assert load_tensors(path)[1]["step"] == 4
        assert load_tensors(previous(path))[1]["step"] == step
        assert not list(folder.glob("*.pending"))
        assert not list(folder.glob(".*.pending"))
        if whole:
            return
    raise AssertionError("a save has more operations than were tried")
