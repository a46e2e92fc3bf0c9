"""`nas audit`: networks trained alone against the same ones in the supernet."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import quietly, refused
from PIL import Image

from nas.audit import FOLDER
from nas.data import load_data
from nas.rank_fidelity import kendall_tau
from nas.stand_alone import StandAlone, alone_recipe, only
from nas.train_job import prepare
from nas.trained import load_supernet, settings_of
from search_spaces import Arch
from supernets import Supernet
from supernets.evaluate import evaluate
from supernets.recipes import sandwich, sortednet

AUDIT = ("--networks", "4", "--epochs", "1")


@pytest.fixture(scope="module")
def audited(supernet, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A run that was audited, and what was said of it. Not to be changed."""
    folder = Path(shutil.copytree(supernet, tmp_path_factory.mktemp("audited") / "tiny"))
    return folder, quietly("audit", str(folder), *AUDIT, "--device", "cpu")


@pytest.fixture
def copied(nas, supernet) -> Path:
    """A trained run that may be changed."""
    return Path(shutil.copytree(supernet, "tiny"))


def scores(run: Path) -> dict[str, float]:
    return {p.name: json.loads(p.read_text())["score"] for p in (run / FOLDER).glob("*.json")}


def test_a_run_shows_its_audit(nas, audited, copied) -> None:
    run, document = audited
    shown = nas("show", run)
    assert (shown.code, shown.err) == (0, "")
    assert "Kendall tau" in shown.out
    assert "over 4 networks" in shown.out
    assert json.loads(nas("show", run, "--json").out)["audit"] == document
    (copied / "audit.json").write_text("{")
    refused(nas("show", copied), 2, "audit.json is damaged")


def test_an_audit_says_how_far_the_ranking_can_be_trusted(nas, audited) -> None:
    copied, document = audited
    rows = document["networks"]
    assert len(rows) == 4
    assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows)
    tau = kendall_tau([r["supernet"] for r in rows], [r["alone"] for r in rows])
    assert document["fidelity"]["tau"] == (None if np.isnan(tau) else tau)
    assert document["fidelity"]["networks"] == 4
    assert document["alone"]["phases"][0]["epochs"] == 1
    assert json.loads((copied / "audit.json").read_text()) == document
    with Image.open(copied / "audit.png") as picture:
        assert picture.size == (800, 640)
    with (copied / "audit.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["alone"]) for row in table] == [row["alone"] for row in rows]
    assert [Arch.from_json(row["arch"]) for row in table] == [Arch(row["arch"]) for row in rows]
    # The scores with shared weights, by the plain route.
    data = load_data("digits", image_size=8)
    loaded = load_supernet(copied, settings_of(copied), data)
    archs = [Arch(row["arch"]) for row in rows]
    calibration = [x for x, _ in data.calibration_batches()]
    expected = evaluate(loaded, archs, data.validation_batches(100), calibration)
    assert [row["supernet"] for row in rows] == pytest.approx(list(expected))
    # Again: what was trained is not trained again.
    before = {p: p.stat().st_mtime_ns for p in (copied / FOLDER).glob("*.json")}
    ran = nas("audit", copied, *AUDIT, "--json")
    assert json.loads(ran.out) == document
    said = (
        "4 networks of mobilenet_v3",
        "0 to be trained",
        "Kendall tau",
        "by multiply-adds",
        "alone they are",
    )
    for word in said:
        assert word in ran.err
    assert {p: p.stat().st_mtime_ns for p in (copied / FOLDER).glob("*.json")} == before
    assert not [p for p in (copied / FOLDER).iterdir() if p.is_dir()]


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(nas, copied) -> None:
    before = sorted(copied.iterdir())
    plan = json.loads(nas("audit", copied, *AUDIT, "--dry-run", "--json").out)
    assert (len(plan["networks"]), plan["to_train"]) == (4, 4)
    assert plan["estimated_seconds"] > 0
    assert sorted(copied.iterdir()) == before


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_audit_goes_on_where_it_was(nas, start, copied, audited, signum) -> None:
    whole, _ = audited
    process = start("audit", copied, *AUDIT)
    process.wait_until(lambda: len(scores(copied)) >= 1)
    process.send(signum)
    ran = process.wait()
    assert ran.code == (-signum if signum == signal.SIGKILL else 130)
    if signum == signal.SIGINT:
        assert f"nas audit {copied} --networks 4 --epochs 1" in ran.out
    kept = {p: p.stat().st_mtime_ns for p in (copied / FOLDER).glob("*.json")}
    assert 1 <= len(kept) < 4
    assert nas("audit", copied, *AUDIT, "-q").code == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert scores(copied) == scores(whole)
    numbers = [json.loads((run / "audit.json").read_text())["networks"] for run in (copied, whole)]
    assert numbers[0] == numbers[1]


def test_what_cannot_be_audited_is_named(nas, supernet, searched) -> None:
    refused(nas("audit", "runs/absent"), 4, "no such run folder: runs/absent")
    refused(nas("audit", searched), 2, "is a run of 'nas search'")
    refused(nas("audit", supernet, "--networks", "2"), 2, "--networks", "at least 3")
    copied = Path(shutil.copytree(supernet, "unfinished"))
    (copied / "supernet.json").unlink()
    refused(nas("audit", copied), 2, "not trained to its end", f"nas train --resume {copied}")


def test_alone_is_the_whole_network_from_scratch_with_the_first_phases_settings(supernet) -> None:
    job = prepare(settings_of(supernet))
    arch = job.space.smallest
    space = only(job.space, arch)
    assert (space.size, space.largest) == (1, arch)
    weights = sum(p.numel() for p in Supernet(space).parameters())
    assert weights == job.space.costs(job.space.index([arch])).params[0]
    recipe = alone_recipe(sortednet.recipe(epochs=40, n=4))
    assert (recipe.epochs, recipe.phases[0].accumulate, recipe.phases[0].lr) == (40, 4, 1e-3)
    assert alone_recipe(sandwich.recipe(epochs=40), 2).phases[0].warmup_epochs == pytest.approx(0.2)
    one, two = (StandAlone(job.space, job.data, alone_recipe(job.recipe, e), Path("x")) for e in (1, 2))
    assert one.key(arch) != two.key(arch) != one.key(job.space.largest)
    assert one.known(arch) is None
