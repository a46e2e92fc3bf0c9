from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import failing, together
from torch import Tensor

from search_spaces import SearchSpace, vit
from supernets.batches import shards
from supernets.checkpoint import load_tensors
from supernets.distributed import ALONE, Ranks
from supernets.plan import Member, SamplingPolicy, StepPlan
from supernets.policies.sandwich import Sandwich
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe
from supernets.step import Learner, Outcome, step_rng, train_step
from supernets.supernet import Supernet
from supernets.trainer import Interrupted, Progress, train

BATCH = 7  # no number of ranks here divides it


class Pictures:
    """Noise around one mean per class; a function of (epoch, batch number) only."""

    steps = 4

    def __init__(self, batch: int = BATCH, bad: tuple[int, int, int] | None = None) -> None:
        self.batch, self.bad = batch, bad

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(start, self.steps):
            rng = np.random.default_rng((1, epoch, number))
            y = rng.integers(0, 4, self.batch)
            x = torch.from_numpy(rng.normal(size=(self.batch, 3, 8, 8)) + y[:, None, None, None]).float()
            if self.bad and self.bad[:2] == (epoch, number):
                x[self.bad[2]] = math.nan
            yield x, torch.from_numpy(y)


def tiny_vit() -> SearchSpace:
    return vit.space(
        classes=4, image_size=8, patch=4, depths=(1, 2), embed_dims=(16, 24), heads=(1, 2), head_dim=8
    )


def recipe(epochs: int = 1, policy: SamplingPolicy | None = None, **settings: Any) -> Recipe:
    given: dict[str, Any] = {"lr": 0.05, "clip_norm": 1.0, "ema_decay": 0.9, **settings}
    return Recipe("r", (Phase(name="only", epochs=epochs, policy=policy or Sandwich(4), **given),))


def trained(
    ranks: Ranks, folder: Path, recipe: Recipe, data: Pictures | None = None, **more: Any
) -> tuple[dict[str, Tensor], list[Progress]]:
    """The weights and what was reported, of a training in `folder`."""
    supernet, seen = Supernet(tiny_vit(), seed=ranks.rank), []  # the first rank's initial weights count
    train(supernet, recipe, data or Pictures(), folder=folder, ranks=ranks, report=seen.append, **more)
    return {name: t.detach().clone() for name, t in supernet.shared_state().items()}, seen


def farthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[n].double() - b[n].double()).abs().max()) for n in a)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("ranks", [Ranks(0, 1), Ranks(1, 3), Ranks(2, 3)])
def test_the_parts_of_a_batch_put_together_are_the_batch(ranks) -> None:
    whole = list(Pictures().epoch(0, 1))
    every = [list(shards(Pictures(), 0, 1, Ranks(r, ranks.size))) for r in range(ranks.size)]
    for number, (x, y) in enumerate(whole):
        parts = [one[number] for one in every]
        assert torch.equal(torch.cat([p.x for p in parts]), x)
        assert torch.equal(torch.cat([p.y for p in parts]), y)
        assert [p.total for p in parts] == [BATCH] * ranks.size
        assert parts[0].first == 0
        assert all(a.first + len(a.x) == b.first for a, b in pairwise(parts))


KINDS: dict[str, dict[str, Any]] = {
    "sandwich": {},
    "masked": {"untouched": "masked", "optimizer": "adamw", "lr": 0.003, "policy": Uniform(2)},
    "teacher": {"teacher": "largest", "divergence": "alpha", "policy": Uniform(2, "teacher")},
    "mixup": {"mixup": 0.3, "label_smoothing": 0.1, "accumulate": 3},
}


def _trainings(ranks: Ranks, folder: Path) -> dict[str, Any]:
    found = {kind: trained(ranks, folder / kind, recipe(**settings)) for kind, settings in KINDS.items()}
    return found | {"few": trained(ranks, folder / "few", recipe(), Pictures(batch=1))}


def test_two_ranks_train_what_one_process_with_the_whole_batch_does(tmp_path) -> None:
    """Same weights, losses and accuracies, up to the order of sums; also one image for two ranks."""
    together_ = together(2, _trainings, tmp_path / "two")
    alone = _trainings(ALONE, tmp_path / "one")
    for kind, (weights, seen) in alone.items():
        first, second = together_[0][kind], together_[1][kind]
        assert farthest(first[0], second[0]) == 0.0  # the ranks agree bit for bit
        assert farthest(weights, first[0]) < 2e-5, kind
        assert farthest(load_tensors(tmp_path / "two" / kind / "supernet.safetensors")[0], first[0]) == 0.0
        for mine, theirs in zip(seen, first[1], strict=True):
            assert math.isclose(mine.loss, theirs.loss, rel_tol=1e-4), kind
            assert (mine.step, mine.accuracy) == (theirs.step, theirs.accuracy)
        (mine_line,), (their_line,) = log(tmp_path / "one" / kind), log(tmp_path / "two" / kind)
        for key in ("accuracy", "steps", "skipped", "lr"):
            assert mine_line[key] == their_line[key]
        assert math.isclose(mine_line["other_loss"] or 0, their_line["other_loss"] or 0, rel_tol=1e-4)


class One(SamplingPolicy):
    """A random arch of one depth."""

    name = "one"

    def __init__(self, depth: int | None) -> None:
        self.depth = depth

    def plan(self, space: SearchSpace, rng: np.random.Generator) -> StepPlan:
        space = space.restrict({"depth": (self.depth,)}) if self.depth else space
        return StepPlan((Member(space.archs(space.sample(1, rng))[0], regularise=False),))


def _one_step(ranks: Ranks, vary: bool, size: int) -> tuple[dict[str, Tensor | None], Outcome, list[Any]]:
    """The gradient of one step of four images, as the optimiser sees it."""
    supernet = Supernet(tiny_vit(), seed=0)
    policy = One(None if vary else 1)
    learner = Learner(
        supernet=supernet,
        phase=recipe(policy=policy, clip_norm=0.0).phases[0],
        policy=policy,
        space=supernet.space,
        optimizer=torch.optim.SGD(supernet.parameters(), lr=0.1),
        set_rate=lambda _: 0.1,
        ema=None,
        dtype=None,
        scaler=None,
        channels_last=True,
        teacher=None,
        ranks=ranks,
    )
    plans = [learner.policy.plan(learner.space, step_rng(0, 3, rank=r)) for r in range(size if vary else 1)]
    seen: dict[str, Tensor | None] = {}

    def keep(*_: Any) -> None:
        seen.update((n, copy.deepcopy(p.grad)) for n, p in supernet.named_parameters())

    learner.optimizer.register_step_pre_hook(keep)
    outcome = train_step(learner, plans, shards_of_one(ranks), share=1.0, seed=0, step=3, updates=0)
    return seen, outcome, [plan.archs[0] for plan in plans]


def shards_of_one(ranks: Ranks) -> list[Any]:
    return [next(shards(Pictures(batch=4), 0, 0, ranks))]


def test_archs_of_their_own_give_the_mean_gradient_and_the_unused_keep_none() -> None:
    """Over ranks, not over users: where one of two ranks uses a weight it moves by half of that gradient."""
    (mine, outcome, archs), (other, _, _) = together(2, _one_step, True, 2)
    assert len(set(archs)) == 2
    supernet, (x, y) = Supernet(tiny_vit(), seed=0), next(Pictures(batch=4).epoch(0))
    losses = []
    for arch, part in zip(archs, (slice(0, 2), slice(2, 4)), strict=True):
        loss = torch.nn.functional.cross_entropy(supernet(x[part], arch), y[part])
        (loss / 2).backward()
        losses.append(float(loss.detach()))
    assert [n for n, p in supernet.named_parameters() if p.grad is None] == [
        n for n, grad in mine.items() if grad is None
    ]
    for name, parameter in supernet.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-5, atol=1e-6)
            assert torch.equal(mine[name], other[name])
    assert [arch for plan, _ in outcome.by_plan for arch in plan.archs] == archs
    np.testing.assert_allclose([row[0] for _, row in outcome.by_plan], losses, rtol=1e-5)
    np.testing.assert_allclose(outcome.losses, [np.mean(losses)], rtol=1e-5)
    assert outcome.images == 4


def test_the_gradient_of_a_step_is_that_of_one_process() -> None:
    (mine, outcome, _), (other, _, _) = together(2, _one_step, False, 2)
    whole, alone, _ = _one_step(ALONE, False, 1)
    assert math.isclose(outcome.losses[0], alone.losses[0], rel_tol=1e-6)
    assert any(grad is None for grad in whole.values())  # deeper blocks of a shallow arch
    for name, grad in whole.items():
        assert (grad is None) == (mine[name] is None) == (other[name] is None), name
        if grad is not None:
            torch.testing.assert_close(mine[name], grad, rtol=1e-5, atol=1e-6)


def _with_a_bad_image(ranks: Ranks, folder: Path) -> list[int]:
    _, seen = trained(ranks, folder, recipe(), Pictures(bad=(0, 1, BATCH - 1)))
    return [progress.skipped for progress in seen]


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_by_all(tmp_path) -> None:
    assert together(2, _with_a_bad_image, tmp_path) == [[0, 1, 1, 1]] * 2
    assert log(tmp_path)[0]["skipped"] == 1


class Crash(Exception):
    pass


def _until(ranks: Ranks, folder: Path, last: int | None, vary: bool = False) -> float:
    """Trains until `last` steps are done, or to the end; a sum of the weights."""

    def report(progress: Progress) -> None:
        if progress.step == last:
            raise Crash

    supernet = Supernet(tiny_vit(), seed=0)
    given = recipe(epochs=2, policy=Sandwich(3), optimizer="adamw", lr=0.003, untouched="masked")
    try:
        train(
            *(supernet, given, Pictures()),
            folder=folder,
            ranks=ranks,
            report=report,
            checkpoint_minutes=0,
            vary_archs=vary,
        )
    except Crash:
        return math.nan
    return sum(float(t.double().abs().sum()) for t in supernet.shared_state().values())


def test_a_training_goes_on_with_another_number_of_ranks(tmp_path) -> None:
    whole = _until(ALONE, tmp_path / "whole", None)
    assert all(math.isnan(v) for v in together(2, _until, tmp_path / "moved", 3))
    assert math.isnan(_until(ALONE, tmp_path / "moved", 6))
    end = together(2, _until, tmp_path / "moved", None)
    assert end[0] == end[1]
    assert math.isclose(whole, end[0], rel_tol=1e-6)
    steps = [line["steps"] for line in log(tmp_path / "moved")]
    assert steps == [4, 4]


def _in_two_goes(ranks: Ranks, folder: Path) -> list[float]:
    ends = []
    for name, stop in (("once", None), ("twice", 5)):
        _until(ranks, folder / name, stop, vary=True)
        ends.append(_until(ranks, folder / name, None, vary=True))
    return ends


def test_resumed_on_as_many_ranks_is_uninterrupted_bit_for_bit(tmp_path) -> None:
    for once, twice in together(2, _in_two_goes, tmp_path):
        assert once == twice
    digests = {json.loads((tmp_path / n / "supernet.json").read_text())["sha256"] for n in ("once", "twice")}
    assert len(digests) == 1


def _asked_to_stop(ranks: Ranks, folder: Path) -> int:
    import os
    import signal

    def report(progress: Progress) -> None:
        if (progress.step, ranks.rank) == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        train(Supernet(tiny_vit()), recipe(), Pictures(), folder=folder, ranks=ranks, report=report)
    assert caught.value.signum == signal.SIGTERM
    return caught.value.step


def test_a_signal_to_one_rank_stops_all_at_the_same_step(tmp_path) -> None:
    assert together(2, _asked_to_stop, tmp_path) == [3, 3]
    assert json.loads((tmp_path / "checkpoint.json").read_text())["meta"]["position"]["global_step"] == 3


def _busy(ranks: Ranks, folder: Path) -> str:
    from supernets.files import Busy

    try:
        train(Supernet(tiny_vit()), recipe(), Pictures(), folder=folder, ranks=ranks)
    except Busy as error:
        return str(error)
    return ""


def test_what_the_first_rank_finds_wrong_is_raised_on_all(tmp_path) -> None:
    from supernets.files import lock

    with lock(tmp_path):
        said = together(2, _busy, tmp_path)
    assert "in use by pid" in said[0]
    assert said[0] == said[1]


def _one_fails(ranks: Ranks, folder: Path, which: int) -> None:
    def report(progress: Progress) -> None:
        if (progress.step, ranks.rank) == (2, which):
            raise MemoryError("no more")

    train(Supernet(tiny_vit()), recipe(), Pictures(), folder=folder, ranks=ranks, report=report)


def test_an_error_on_one_rank_ends_all_and_is_said_once(tmp_path) -> None:
    for which in (0, 1):
        found = failing(2, _one_fails, tmp_path, which)
        assert found[which] == ("MemoryError", "no more", True)
        assert found[1 - which][::2] == ("RankLost", False)


def _killed(ranks: Ranks, folder: Path) -> None:
    import os
    import signal

    def report(progress: Progress) -> None:
        if (progress.step, ranks.rank) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)

    train(Supernet(tiny_vit()), recipe(), Pictures(), folder=folder, ranks=ranks, report=report)


def test_a_rank_that_is_killed_ends_the_other_with_a_line(tmp_path) -> None:
    (name, text, speaks), _ = failing(2, _killed, tmp_path)
    assert (name, speaks) == ("RankLost", True)
    assert "failed or was killed" in text
