"""`torchrun -m nas train`: ranks that are killed, their launcher killed, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ran, record_of

VIT = (
    *("--space", "vit", "--image-size", "8", "--batch-size", "250", "--epochs", "12", "--device", "cpu"),
    *("--space-set", "patch=4", "--space-set", "depths=[1,2]", "--space-set", "embed_dims=[16,24]"),
    *("--space-set", "heads=[1,2]", "--space-set", "head_dim=8", "--recipe-set", "n=3"),
)
STEPS = 12 * 4  # 1,079 images


@pytest.fixture(autouse=True)
def _gloo() -> None:
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch has no gloo, which connects ranks on the CPU")
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not say which processes torchrun has started")


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def workers(launcher: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(reached: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.01)


def step(run: Path) -> int:
    try:
        return json.loads((run / "checkpoint.json").read_text())["meta"]["position"]["global_step"]
    except FileNotFoundError:
        return 0


@pytest.fixture
def on_two_ranks(start, monkeypatch) -> Callable[..., list[Ran]]:
    """Runs a command line on two ranks without a launcher."""

    def run(*arguments: str) -> list[Ran]:
        with socket.socket() as probe, monkeypatch.context() as patch:
            probe.bind(("127.0.0.1", 0))
            shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": probe.getsockname()[1]}
            for name, value in shared.items():
                patch.setenv(name, str(value))
            patch.setenv("MASTER_ADDR", "127.0.0.1")
            started = []
            for rank in "01":
                patch.setenv("RANK", rank)
                patch.setenv("LOCAL_RANK", rank)
                started.append(start(*arguments))
        return [process.wait() for process in started]

    return run


def test_killed_workers_restart_a_killed_launcher_leaves_none_and_the_weights_are_the_same(
    on_two_ranks, tmp_path
) -> None:
    """One launch: a worker is killed and torchrun starts both again in the same run; then torchrun is killed,
    its workers save and go; two ranks finish the run. Another run is never disturbed: equal weights."""
    run, printed = tmp_path / "runs" / "killed", (tmp_path / "printed").open("w+")
    torchrun = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("--max-restarts", "1", "-m", "nas", "train", *VIT, "--name", "killed"),
            *("--checkpoint-minutes", "0"),
        ],
        cwd=tmp_path,
        env=environment(),
        stdout=printed,
        stderr=printed,
    )
    try:
        wait_until(lambda: step(run) >= 4 or torchrun.poll() is not None)
        first = workers(torchrun.pid)
        assert len(first) == 2, printed.seek(0) or printed.read()
        os.kill(first[1], signal.SIGKILL)
        before = step(run)
        wait_until(lambda: set(workers(torchrun.pid)).isdisjoint(first) and step(run) >= before + 4)
        second = workers(torchrun.pid)
    finally:
        torchrun.kill()
        torchrun.wait()
    wait_until(lambda: not any(map(alive, second)))
    assert step(run) < STEPS, "the end came before the kill; train for longer"

    ended = on_two_ranks("train", "--resume", str(run), "--json")
    assert [process.code for process in ended] == [0, 0], ended
    assert ended[1].out == ended[1].err == ""
    whole = on_two_ranks("train", *VIT, "--name", "whole", "--json")
    result = json.loads(whole[0].out)
    assert json.loads(ended[0].out)["weights"]["sha256"] == result["weights"]["sha256"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["killed", "whole"]
    assert record_of(run)["ranks"] == 2
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == [4] * 12

    # A mistake that both ranks see is said once, with its code; the run of a name is not begun twice.
    twice = on_two_ranks("train", *VIT, "--name", "whole")
    assert [process.code for process in twice] == [2, 2]
    assert sum("runs/whole exists" in process.err for process in twice) == 1
    assert "Traceback" not in "".join(process.err for process in twice)


def test_other_commands_say_that_they_run_in_one_process(nas, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    ran = nas("search", "--target", "jetson")
    assert (ran.code, "in one process" in ran.err) == (2, True)
    monkeypatch.setenv("RANK", "1")
    assert nas("search", "--target", "jetson").err == ""
