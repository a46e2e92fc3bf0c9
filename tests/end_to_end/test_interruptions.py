"""Runs that are killed, interrupted or out of disk: nothing is lost, --resume ends where they would have.

Processes here are real, and so are their deaths.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import TINY, record_of, refused
from test_search_command import trials_of

SAVING = (*TINY, "--checkpoint-minutes", "0")  # after each step
STEPS = 16


def weights(run: Path) -> str:
    """SHA-256 of the supernet's file."""
    return hashlib.sha256((run / "supernet.safetensors").read_bytes()).hexdigest()


def step(run: Path) -> int:
    """The optimiser step of the last checkpoint; 0 before the first."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads((run / "checkpoint.json").read_text())["meta"]["position"]["global_step"]
    return 0


def recorded(run: Path) -> int:
    """Trials that are in the study's file; 0 before there is one."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{run}/study.db?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM trials").fetchone()[0]
    except sqlite3.Error:
        return 0


def search_of(supernet: Path, *more: str) -> tuple[str, ...]:
    """A search of 24 networks for a Jetson, as the fixture `searched` ran it."""
    common = ("--target", "jetson", "--evaluations", "24", "--population", "6", "--no-export")
    return ("search", "--supernet", str(supernet), *common, *more)


def leftovers(run: Path) -> list[str]:
    """Files that only a process in the middle of writing may have."""
    return [p.name for p in run.iterdir() if p.name.endswith((".tmp", ".pending"))]


def test_a_training_killed_again_and_again_ends_with_the_same_weights(nas, start, supernet) -> None:
    draw = random.Random(0)
    run = Path("runs/killed")
    command = ("train", *SAVING, "--name", "killed")
    for at in sorted(draw.sample(range(1, STEPS * 2 // 3), 3)):
        process = start(*command)
        process.wait_until(lambda at=at: step(run) >= at)
        time.sleep(draw.uniform(0.0, 0.02))
        process.send(signal.SIGKILL)
        assert process.wait().code == -signal.SIGKILL
        assert not (run / "supernet.safetensors").exists()
        command = ("train", "--resume", run)
    assert nas(*command, "-q").code == 0
    assert weights(run) == weights(supernet)
    assert record_of(run)["result"]["weights"]["sha256"] == weights(supernet)
    assert leftovers(run) == []
    assert len((run / "log.jsonl").read_text().splitlines()) == 2


def test_a_search_killed_again_and_again_has_the_same_front(nas, start, supernet, searched) -> None:
    draw = random.Random(1)
    run = Path("runs/killed")
    command = search_of(supernet, "--name", "killed")
    for at in (0, 5, 15):
        process = start(*command)
        process.wait_until(lambda at=at: recorded(run) >= at and (run / "study.db").exists())
        time.sleep(draw.uniform(0.0, 0.03))
        process.send(signal.SIGKILL)
        assert process.wait().code == -signal.SIGKILL
        command = ("search", "--resume", str(run))
    ran = nas(*command)
    assert ran.code == 0, ran
    assert re.search(r"\d+ networks are in the record already", ran.out)
    assert trials_of(run) == trials_of(searched)
    assert record_of(run)["result"]["front"] == record_of(searched)["result"]["front"]
    assert leftovers(run) == []


@pytest.mark.parametrize("death", [("replace", 1), ("fsync", 7), ("replace", 5)])
def test_a_search_killed_while_it_hands_over_still_does(nas, start, supernet, searched, death) -> None:
    """At one of the moments at which a file becomes another: whole files only, and the next try succeeds."""
    run = Path(shutil.copytree(searched, "run"))
    before = record_of(run)
    process = start("search", "--resume", run, "--pick", "accuracy>0.01", "--no-export", die_at=death)
    assert process.wait().code == -signal.SIGKILL
    assert record_of(run)["what"] == "search"
    assert (run / "front.png").read_bytes()[-12:-8] == b"\0\0\0\0"  # the end of a PNG
    assert (run / "front.csv").read_bytes() == (searched / "front.csv").read_bytes()
    result = json.loads(nas("search", "--resume", run, "--no-export", "--json", "-q").out)
    assert result["front"] == before["result"]["front"]
    assert leftovers(run) == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_asked_to_stop_says_how_to_go_on(nas, start, supernet, signum, code) -> None:
    run = Path("runs/stopped")
    # One checkpoint a year: what is saved is saved because of the signal.
    process = start("train", *TINY, "--checkpoint-minutes", "525600", "--name", "stopped")
    process.wait_until(lambda: (run / ".lock").exists())
    time.sleep(0.1)
    process.send(signum)
    begun = time.monotonic()
    ran = process.wait()
    assert time.monotonic() - begun < 20
    word = "interrupted" if signum == signal.SIGINT else "terminated"
    refused(ran, code, f"nas: error: {word}: saved at step {step(run)} in {run}\n")
    assert f"next: nas train --resume {run}\n" in ran.out
    assert nas("train", "--resume", run, "-q").code == 0
    assert weights(run) == weights(supernet)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_search_that_is_asked_to_stop_says_how_to_go_on(
    nas, start, supernet, searched, signum, code
) -> None:
    run = Path("runs/stopped")
    process = start(*search_of(supernet, "--name", "stopped", "--json"))
    process.wait_until(lambda: recorded(run) >= 6)
    process.send(signum)
    ran = process.wait()
    assert ran.code == code, ran
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert ran.err.count("nas: error: ") == 1
    assert ran.err.endswith(f"  next: nas search --resume {run}\n")
    with contextlib.closing(sqlite3.connect(run / "study.db")) as connection:
        assert connection.execute("SELECT DISTINCT state FROM trials").fetchall() == [("COMPLETE",)]
    assert nas("search", "--resume", run, "-q").code == 0
    assert trials_of(run) == trials_of(searched)


def test_a_search_that_is_stopped_while_its_supernet_trains_goes_on_with_both(nas, start) -> None:
    search = ("search", *SAVING, "--target", "jetson", "--evaluations", "4", "--population", "4")
    process = start(*search, "--no-export", "--name", "both")
    process.wait_until(lambda: any(step(trained) >= 2 for trained in Path("runs").glob("supernet-*")))
    process.send(signal.SIGINT)
    ran = process.wait()
    assert ran.code == 130, ran
    assert "next: nas search --resume runs/both\n" in ran.out
    (trained,) = Path("runs").glob("supernet-*")
    assert not (trained / "supernet.safetensors").exists()
    # Somebody else goes on with it meanwhile.
    other = start("train", "--resume", trained)
    other.wait_until(lambda: step(trained) >= 6)
    other.send(signal.SIGSTOP)
    refused(nas("search", "--resume", "runs/both", "-q"), 3, f"{trained} is in use by pid {other.pid}")
    other.send(signal.SIGCONT)
    assert other.wait().code == 0
    assert nas("search", "--resume", "runs/both", "-q").code == 0
    assert record_of(Path("runs/both"))["result"]["evaluated"] == 4


def test_one_run_is_for_one_process(nas, start, supernet) -> None:
    run = Path("runs/shared")
    for first, verb in ((("train", *SAVING), "train"), (search_of(supernet), "search")):
        folder = Path(f"{run}-{verb}")
        process = start(*first, "--name", folder.name)
        process.wait_until(lambda: step(folder) >= 2 or recorded(folder) >= 2)  # noqa: B023
        process.send(signal.SIGSTOP)
        ran = nas(verb, "--resume", folder, "-q", "--json")
        refused(ran, 3, f"{folder} is in use by pid {process.pid}")
        assert ran.out == ""
        process.send(signal.SIGKILL)
        process.wait()


def test_a_full_disk_in_training_leaves_what_was_saved(nas, start, supernet) -> None:
    """By a limit on the size of files: the record fits, a checkpoint does not."""
    run = Path("runs/full")
    process = start("train", *SAVING, "--name", "full")
    process.wait_until(lambda: step(run) >= 5)
    process.send(signal.SIGINT)
    assert process.wait().code == 130
    before = {p.name: p.read_bytes() for p in run.glob("checkpoint*")}
    ran = start("train", "--resume", run, "-q", "--json", file_limit=30_000).wait()
    refused(ran, 5, f"file size limit reached, needs 0.1 MB: {run}/checkpoint.safetensors")
    assert ran.out == ""
    assert {p.name: p.read_bytes() for p in run.glob("checkpoint*")} == before
    assert leftovers(run) == []
    assert nas("train", "--resume", run, "-q").code == 0
    assert weights(run) == weights(supernet)


def test_a_full_disk_in_a_search_leaves_what_was_recorded(nas, start, supernet, searched) -> None:
    run = Path("runs/full")
    ran = start(*search_of(supernet, "--name", "full"), "-q", "--json", file_limit=600_000).wait()
    refused(ran, 5, "study.db")
    assert ran.out == ""
    kept = trials_of(run)
    assert 2 < len(kept) < 20
    assert kept == trials_of(searched)[: len(kept)]
    assert nas("search", "--resume", run, "-q").code == 0
    assert trials_of(run) == trials_of(searched)


def test_a_full_disk_while_handing_over(nas, start, searched) -> None:
    run = Path(shutil.copytree(searched, "run"))
    page = (run / "front.html").read_bytes()
    ran = start("search", "--resume", run, "-q", "--json", file_limit=1_000_000).wait()
    refused(ran, 5, "front.html")
    assert (run / "front.html").read_bytes() == page
    assert leftovers(run) == []
    assert nas("search", "--resume", run, "--no-export", "-q").code == 0


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 2 MB, where this process may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_really_full(nas, start, supernet, searched, small_disk) -> None:
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    ballast.write_bytes(b"x" * (free - 60_000))
    common = ("--runs", small_disk, "-q", "--json")
    ran = nas("train", *TINY, *common, "--name", "trained")
    refused(ran, 5, "disk full, needs 0.1 MB: ", "checkpoint.safetensors")
    assert ran.out == ""
    ran = nas(*search_of(supernet), *common, "--name", "found")
    refused(ran, 5, "disk full while writing the study", "study.db")
    ballast.unlink()
    assert nas("train", "--resume", small_disk / "trained", "-q").code == 0
    assert weights(small_disk / "trained") == weights(supernet)
    assert "study" not in record_of(small_disk / "found")  # there was not even room to begin
    refused(nas("search", "--resume", small_disk / "found", "-q"), 5, "disk full", "front.html")
    assert trials_of(small_disk / "found") == trials_of(searched)


def test_the_installed_command_is_interrupted_like_any_other(supernet, searched, tmp_path) -> None:
    """The one test that pays for the imports: the real command, Ctrl-C, and what is on its streams.

    With another hash seed than this process, it has made the same proposals until then.
    """
    command = [str(Path(sys.executable).with_name("nas")), *search_of(supernet)]
    process = subprocess.Popen(
        [*command, "--evaluations", "216", "--name", "x", "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = tmp_path / "runs" / "x"
    end = time.monotonic() + 100
    while recorded(run) < 12 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert err == "nas: error: interrupted\n"
    assert out.endswith("  next: nas search --resume runs/x\n")
    trials = trials_of(run)
    assert len(trials) >= 12
    assert trials[:24] == trials_of(searched)[: len(trials)]
