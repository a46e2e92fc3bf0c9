"""Files that are damaged, foreign or hostile, data that is broken, numbers that explode: one line each."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import TINY, record_of, refused
from PIL import Image
from test_search_command import trials_of


class Payload:
    """What a malicious pickle holds: loading it would leave a file."""

    def __reduce__(self):
        return (os.mkdir, ("payload-ran",))


def pickled(kind: str) -> bytes:
    """A hostile file as torch.save or pickle writes it."""
    if kind == "pickle":
        return pickle.dumps({"weights": Payload()})
    path = Path("hostile.pt")
    torch.save({"weights": Payload()}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.unlink()
    return content


def damage(path: Path, how: str) -> None:
    """Damages a file in one of the ways in which files get damaged."""
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) * 2 // 3] ^= 1
    path.write_bytes(
        {
            "truncated": lambda: content[: len(content) // 2],
            "one bit": lambda: bytes(flipped),
            "empty": lambda: b"",
            "text": lambda: b"<!DOCTYPE html><title>404</title>",
            "random": lambda: np.random.default_rng(0).bytes(len(content)),
            "pickle": lambda: pickled("pickle"),
            "zip": lambda: pickled("zip"),
            "legacy": lambda: pickled("legacy"),
        }[how]()
    )


KINDS = ["truncated", "one bit", "empty", "text", "random", "pickle", "zip", "legacy"]


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("name", ["supernet.safetensors", "supernet.json"])
def test_damaged_weights_are_refused_by_every_command(nas, supernet, name, how) -> None:
    run = Path(shutil.copytree(supernet, "run"))
    damage(run / name, how)
    search = ("search", "--supernet", run, "--target", "jetson", "--evaluations", "4")
    export = ("export", run, "--arch", "largest", "--format", "safetensors", "-o", "x.safetensors")
    for command in (search, export) if how in ("one bit", "zip") else (export,):
        ran = nas(*command, "--json", "-q")
        refused(ran, 2, name)
        assert ran.out == ""
        assert "damaged" in ran.err or "does not describe" in ran.err
    assert not Path("payload-ran").exists()
    assert not Path("x.safetensors").exists()


@pytest.mark.parametrize("how", ["truncated", "one bit", "zip"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_is_offered(nas, start, supernet, how) -> None:
    run = Path(shutil.copytree(supernet, "run"))
    for path in run.glob("supernet.*"):
        path.unlink()
    for path in run.glob("checkpoint.*"):
        shutil.copy(path, run / path.name.replace("checkpoint.", "checkpoint.previous."))
    damage(run / "checkpoint.safetensors", how)
    ran = nas("train", "--resume", run, "--json", "-q")
    refused(ran, 2, "checkpoint.safetensors", "damaged", "the save before it is whole", "delete checkpoint")
    assert ran.out == ""
    assert not Path("payload-ran").exists()
    (run / "checkpoint.safetensors").unlink()  # as it says
    assert nas("train", "--resume", run, "-q").code == 0
    assert (run / "supernet.safetensors").read_bytes() == (supernet / "supernet.safetensors").read_bytes()


def test_weights_of_another_space_are_refused(nas, supernet) -> None:
    other = ("--space-set", "expands=[2,4]", "--name", "other", "-q")
    assert nas("train", *TINY, *other).code == 0
    run = Path(shutil.copytree(supernet, "run"))
    for name in ("supernet.safetensors", "supernet.json"):
        shutil.copy(Path("runs/other") / name, run / name)
    refused(nas("export", run, "--arch", "largest", "-q"), 2, str(run / "supernet.safetensors"))


def test_a_supernet_that_changed_under_a_study_is_refused(nas, searched, supernet) -> None:
    """Its trials would be of other weights."""
    trained = Path(shutil.copytree(supernet, "tiny"))
    run = Path(shutil.copytree(searched, "found"))
    for path in (*trained.glob("supernet.*"), *trained.glob("checkpoint*")):
        path.unlink()
    record = record_of(trained)
    record["settings"]["seed"] = 5
    (trained / "run.json").write_text(json.dumps(record))
    assert nas("train", "--resume", trained, "-q").code == 0
    record = record_of(run)
    record["settings"]["supernet"] = record["supernet"] = str(trained)
    (run / "run.json").write_text(json.dumps(record))
    refused(nas("search", "--resume", run, "-q"), 2, "was made with supernet ", "start a new search")
    assert trials_of(run) == trials_of(searched)


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "random", "foreign", "missing"])
def test_a_damaged_study_is_refused_with_a_way_out(nas, searched, how) -> None:
    run = Path(shutil.copytree(searched, "run"))
    study = run / "study.db"
    if how == "missing":
        study.unlink()
    elif how == "foreign":
        study.unlink()
        sqlite3.connect(study).execute("CREATE TABLE recipes (name TEXT)").connection.close()
    else:
        damage(study, how)
    content = study.read_bytes() if study.exists() else None
    for command in (("search", "--resume", run), ("show", run)):
        ran = nas(*command, "--json", "-q")
        refused(ran, 2, "study.db")
        assert ran.out == ""
        assert any(hint in ran.err for hint in ("backup", "check the path", "not of studies"))
    assert content is None or study.read_bytes() == content


def test_a_record_of_a_run_that_was_edited_by_hand(nas, searched) -> None:
    run = Path(shutil.copytree(searched, "run"))
    record = record_of(run)
    record["settings"]["evaluatons"] = 3
    (run / "run.json").write_text(json.dumps(record))
    refused(nas("search", "--resume", run, "-q"), 2, "run.json", "did you mean 'evaluations'?")
    (run / "run.json").write_text(json.dumps(record)[:-100])
    refused(nas("search", "--resume", run, "-q"), 2, "run.json is damaged")
    refused(nas("export", run, "-q"), 2, "run.json is damaged")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("epochs: 1\nepoch: 3\n", "line 2: unknown setting 'epoch'; did you mean 'epochs'?"),
        ("epochs: 1\nepochs: 3\n", "line 2"),
        ("epochs: many\n", "expected a whole number"),
        ("space: mobilenet_v4\n", "did you mean 'mobilenet_v3'?"),
        ("seed: !!python/object/apply:os.mkdir [payload-ran]\n", "line 1"),
        (
            "a: &a [1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
            ),
            "line",
        ),
        ("[" * 5000, "line 1"),
        ("seed: 1\n" + "# x\n" * 400_000, "study.yaml"),
        ("\0", "study.yaml"),
    ],
    ids=["key", "twice", "type", "name", "tag", "bomb", "deep", "huge", "binary"],
)
def test_a_bad_study_file_is_refused_at_once(nas, content, said) -> None:
    Path("study.yaml").write_text(content)
    for verb in ("train", "search"):
        begun = time.perf_counter()
        ran = nas(verb, "study.yaml", "--json", "-q")
        assert time.perf_counter() - begun < 20  # a bomb takes for ever, or all memory
        refused(ran, 2, said)
        assert ran.out == ""
    assert {path.name for path in Path().iterdir()} == {"study.yaml"}


def pictures(folder: Path, classes: int = 2, each: int = 70) -> Path:
    """An image folder of noise around one grey level per class."""
    rng = np.random.default_rng(0)
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for i in range(each):
            pixels = rng.normal(60 + 120 * c, 10, (12, 12, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{c}" / f"{i}.png")
    return folder


def test_a_broken_picture_is_left_out_and_named(nas) -> None:
    folder = pictures(Path("flowers"))
    (folder / "class1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    (folder / "notes.txt").write_text("not a picture")
    ran = nas("train", "--data", "imagefolder:flowers", *TINY, "--name", "x")
    assert ran.code == 0, ran
    assert ran.err == "warning: 1 images could not be read and are left out; run.json names them\n"
    (skipped,) = record_of(Path("runs/x"))["data"]["skipped"]
    assert skipped["name"] == "class1/broken.png"
    assert skipped["reason"]
    assert record_of(Path("runs/x"))["data"]["classes"] == ["class0", "class1"]
    search = ("--target", "jetson", "--evaluations", "4", "--population", "4", "--no-export", "-q")
    assert nas("search", "--supernet", "runs/x", *search, "--name", "y").code == 0
    # Pictures that come later would move others from the test part into the training part.
    Image.new("RGB", (12, 12)).save(folder / "class0" / "new.png")
    for command in (
        ("train", "--resume", "runs/x"),
        ("search", "--resume", "runs/y"),
        ("search", "--supernet", "runs/x"),
        ("export", "runs/y"),
    ):
        ran = nas(*command, "-q")
        assert ran.code == 2, ran
        *warnings, error = ran.err.splitlines()
        assert error.startswith("nas: error: imagefolder:flowers is not the data that runs/")
        assert all(line.startswith("warning: 1 images could not be read") for line in warnings)


def test_pictures_that_are_not_there(nas) -> None:
    folder = pictures(Path("flowers"), each=8)
    (folder / "empty").mkdir()
    train = ("train", *TINY, "--json", "-q")
    refused(nas(*train, "--data", "imagefolder:flowers"), 2, "empty")
    refused(nas(*train, "--data", "imagefolder:roses"), 4, "roses")
    refused(nas(*train, "--data", "npz:roses.npz"), 4, "roses.npz")
    refused(nas(*train, "--data", "cifar10", "--data-dir", "nowhere"), 4, "nowhere")
    for i in range(4):
        (folder / "class0" / f"{i}.png").write_bytes(b"")
    shutil.rmtree(folder / "empty")
    refused(nas(*train, "--data", "imagefolder:flowers"), 2, "4 of the 16 images", "class0/0.png")
    assert not Path("runs").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none"])
def test_a_place_where_no_run_can_be_kept_is_told_before_the_work(nas, supernet, place) -> None:
    Path("file").write_text("kept")
    for command in (("train", *TINY), ("search", "--supernet", supernet, "--target", "jetson")):
        ran = nas(*command, "--runs", place, "--json", "-q")
        refused(ran, 4, place.partition("/below")[0])
        assert ran.out == ""
    assert Path("file").read_text() == "kept"


def test_a_training_that_explodes_says_what_to_change(nas) -> None:
    ran = nas("train", *TINY, "--lr", "1e6", "--epochs", "3", "--name", "x", "--json", "-q")
    refused(ran, 1, "not finite", "lower lr")
    assert ran.out == ""
    assert not Path("runs/x/supernet.safetensors").exists()
    # Too short for that many bad steps in a row, but most were, so there is nothing worth keeping either.
    refused(nas("train", *TINY, "--lr", "1e6", "--name", "y", "-q"), 1, "not finite", "lower lr")
    assert not Path("runs/y/supernet.safetensors").exists()
