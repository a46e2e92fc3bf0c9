from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces.errors import InputError
from supernets.checkpoint import CheckpointError
from supernets.plan import SamplingPolicy, StepPlan
from supernets.policies.sandwich import Sandwich
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe
from supernets.supernet import Supernet
from supernets.trainer import Interrupted, Progress, train


class Remembering(SamplingPolicy):
    """A policy with memory: how many archs it draws depends on the losses that it saw."""

    name = "remembering"

    def __init__(self) -> None:
        self.total = 0.0

    def plan(self, space, rng):
        return Uniform(1 + int(self.total * 10) % 3).plan(space, rng)

    def observe(self, plan: StepPlan, losses: Sequence[float]) -> None:
        self.total += sum(losses)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total = state["total"]


def halve_head(supernet: Supernet) -> None:
    with torch.no_grad():
        supernet.shared_state()["head.weight"].mul_(0.5)


def full_recipe() -> Recipe:
    """Everything that has a state: two phases, momentum, Adam, EMA, accumulation, memory, mixup, an entry."""
    memory = Remembering()
    return Recipe(
        "full",
        (
            Phase(name="one", epochs=2, policy=Sandwich(3), lr=0.05, ema_decay=0.9, label_smoothing=0.1),
            Phase(
                name="two",
                epochs=2,
                policy=memory,
                optimizer="adamw",
                lr=0.01,
                warmup_epochs=0.5,
                ema_decay=0.9,
                accumulate=3,
                mixup=0.3,
                untouched="masked",
                clip_norm=1.0,
                at_entry=(halve_head,),
            ),
        ),
    )


class Crash(Exception):
    pass


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in lines]


def digest(folder: Path) -> str:
    return json.loads((folder / "supernet.json").read_text())["sha256"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    from conftest import TinyImages, tiny_space

    folder = tmp_path_factory.mktemp("whole")
    train(Supernet(tiny_space(), seed=3), full_recipe(), TinyImages(), folder=folder, seed=5)
    return folder


@pytest.mark.parametrize("stops", [(1,), (3, 6), (4,), (7, 8), (9, 10, 11), (12,)])
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(
    uninterrupted, make_space, make_images, tmp_path, stops
) -> None:
    """4 + 4 steps of phase one, 2 + 2 of phase two; a crash after the report of each step in `stops`."""

    def report(progress: Progress) -> None:
        if progress.step in remaining:
            remaining.remove(progress.step)
            raise Crash

    remaining = list(stops)
    while True:
        # A new process would know nothing: other initial weights, other global state.
        supernet = Supernet(make_space(), seed=3)
        torch.manual_seed(len(remaining))
        try:
            train(
                supernet,
                full_recipe(),
                make_images(),
                folder=tmp_path,
                seed=5,
                checkpoint_minutes=0,
                report=report,
            )
            break
        except Crash:
            continue
    assert not remaining
    assert digest(tmp_path) == digest(uninterrupted)
    assert log(tmp_path) == log(uninterrupted)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_raises_interrupted(
    uninterrupted, make_space, make_images, tmp_path, signum
) -> None:
    def report(progress: Progress) -> None:
        if progress.step == 6:
            os.kill(os.getpid(), signum)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        train(Supernet(make_space()), full_recipe(), make_images(), folder=tmp_path, seed=5, report=report)
    assert (caught.value.step, caught.value.folder, caught.value.signum) == (6, tmp_path, signum)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    images = make_images()
    supernet = Supernet(make_space(), seed=99)
    train(supernet, full_recipe(), images, folder=tmp_path, seed=5)
    assert images.served[0] == (1, 2)  # nothing before the stop was read again
    # The weights do not depend on the supernet's own seed: they come from the checkpoint.
    assert log(tmp_path)[-1]["epoch"] == 4


def test_a_second_signal_stops_at_once(space, images, make_recipe, tmp_path) -> None:
    def report(progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(Supernet(space), make_recipe(2), images, folder=tmp_path, report=report)
    assert not isinstance(caught.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_a_thread_installs_no_handlers(space, images, make_recipe, tmp_path) -> None:
    seen = []

    def report(progress: Progress) -> None:
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(
        target=lambda: train(Supernet(space), make_recipe(1), images, folder=tmp_path, report=report)
    )
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert set(seen) == {before}
    assert len(seen) == 4


def test_a_complete_training_returns_and_gives_its_weights(
    space, make_images, make_recipe, weights_in, tmp_path
) -> None:
    train(Supernet(space), make_recipe(2, ema_decay=0.5), make_images(), folder=tmp_path)
    before, images, again = digest(tmp_path), make_images(), Supernet(space, seed=42)
    train(again, make_recipe(2, ema_decay=0.5), images, folder=tmp_path)
    assert images.served == []
    assert digest(tmp_path) == before
    weights = weights_in(tmp_path)
    assert all(torch.equal(t, weights[n]) for n, t in again.shared_state().items())
    assert len(log(tmp_path)) == 2


def test_other_settings_are_named_not_mixed(
    space, images, make_recipe, make_space, make_images, tmp_path
) -> None:
    train(Supernet(space), make_recipe(1), images, folder=tmp_path)
    for words, space_, recipe, images_, seed in (
        (r"seed = 0, now it is 1", space, make_recipe(1), images, 1),
        (r"recipe\.phases\[0\]\.lr = 0\.02, now it is 0\.5", space, make_recipe(1, lr=0.5), images, 0),
        (r"space = '", make_space(dropout=0.5), make_recipe(1), images, 0),
        (r"batches = 4, now it is 3", space, make_recipe(1), make_images(steps=3), 0),
    ):
        with pytest.raises(InputError, match=words):
            train(Supernet(space_), recipe, images_, folder=tmp_path, seed=seed)
    with pytest.raises(InputError, match="already holds a training"):
        train(Supernet(space), make_recipe(1), images, folder=tmp_path, resume=False)


def test_a_damaged_checkpoint_names_the_previous_one_which_then_serves(
    uninterrupted, make_space, make_images, tmp_path
) -> None:
    def report(progress: Progress) -> None:
        if progress.step == 7:
            raise Crash

    run = {"folder": tmp_path, "seed": 5, "checkpoint_minutes": 0}
    with pytest.raises(Crash):
        train(Supernet(make_space(), seed=3), full_recipe(), make_images(), report=report, **run)
    path = tmp_path / "checkpoint.safetensors"
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(bytes(blob))
    with pytest.raises(CheckpointError, match=r"damaged.*checkpoint\.previous\.safetensors"):
        train(Supernet(make_space()), full_recipe(), make_images(), **run)
    path.unlink()
    images = make_images()
    train(Supernet(make_space()), full_recipe(), images, **run)
    assert images.served[0] == (1, 1)
    assert digest(tmp_path) == digest(uninterrupted)


def test_a_full_disk_is_enospc_or_kin_and_the_old_checkpoint_serves(
    uninterrupted, make_space, make_images, tmp_path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def report(progress: Progress) -> None:
        if progress.step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))

    run = {"folder": tmp_path, "seed": 5, "checkpoint_minutes": 0}
    try:
        with pytest.raises(OSError, match="needs") as caught:
            train(Supernet(make_space(), seed=3), full_recipe(), make_images(), report=report, **run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    images = make_images()
    train(Supernet(make_space(), seed=3), full_recipe(), images, **run)
    assert images.served[0] == (1, 1)
    assert digest(tmp_path) == digest(uninterrupted)
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".tmp", ".pending")]


def test_kill_9_at_any_moment_loses_nothing_that_was_saved(uninterrupted, tmp_path) -> None:
    code = (
        "import sys, pathlib\n"
        "sys.path[:0] = [sys.argv[1]]\n"
        "from conftest import TinyImages, tiny_space\n"
        "from test_resume import full_recipe\n"
        "from supernets.supernet import Supernet\n"
        "from supernets.trainer import train\n"
        "print('ready', flush=True)\n"
        "train(Supernet(tiny_space(), seed=3), full_recipe(), TinyImages(), folder=sys.argv[2], seed=5,\n"
        "      checkpoint_minutes=0, report=lambda p: print(p.step, flush=True))\n"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for kill_at in ("3", "9", None):
        process = subprocess.Popen(
            [sys.executable, "-c", code, here, tmp_path], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == kill_at:  # it is now saving that step
                process.kill()
        assert process.wait() == (-signal.SIGKILL if kill_at else 0)
    assert digest(tmp_path) == digest(uninterrupted)
    assert log(tmp_path) == log(uninterrupted)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "checkpoint.json",
        "checkpoint.previous.json",
        "checkpoint.previous.safetensors",
        "checkpoint.safetensors",
        "log.jsonl",
        "supernet.json",
        "supernet.safetensors",
    ]
