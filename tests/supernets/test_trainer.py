from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from search_spaces.errors import InputError
from supernets.evaluate import evaluate
from supernets.files import Busy, lock
from supernets.phases import check_recipe
from supernets.plan import Member, SamplingPolicy, StepPlan
from supernets.policies.sandwich import Sandwich
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe
from supernets.supernet import Supernet
from supernets.trainer import Progress, TrainingDiverged, train


def state(supernet: Supernet) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in supernet.shared_state().items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        difference = (a[name].double() - b[name].double()).abs().max() if a[name].numel() else 0.0
        assert torch.equal(a[name], b[name]), f"{name}: largest difference {float(difference):.3g}"


def test_every_subnet_learns(space, images, make_recipe, tmp_path) -> None:
    supernet = Supernet(space)
    train(supernet, make_recipe(12, lr=0.05), images, folder=tmp_path)
    archs = [space.largest, space.smallest, *space.archs(space.sample(4, np.random.default_rng(0)))]
    held_out = [images.one(99, n) for n in range(4)]
    accuracy = evaluate(supernet, archs, held_out, [images.one(0, n)[0] for n in range(4)])
    assert (accuracy > 0.8).all(), accuracy


def test_progress_and_log_say_what_happened(space, images, make_recipe, tmp_path) -> None:
    seen: list[Progress] = []
    train(Supernet(space), make_recipe(3, warmup_epochs=1), images, folder=tmp_path, report=seen.append)
    assert [p.step for p in seen] == list(range(1, 13))
    assert [p.epoch for p in seen] == [1] * 4 + [2] * 4 + [3] * 4
    last = seen[-1]
    assert (last.steps, last.epochs, last.phase, last.skipped) == (12, 3, "only", 0)
    assert last.eta_s == 0.0
    assert last.images_per_s > 0
    assert 0 <= last.accuracy <= 1
    rates = [p.lr for p in seen]
    assert rates[:4] == sorted(rates[:4])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert math.isclose(rates[0], 0.02 / 100)
    with pytest.raises(dataclasses.FrozenInstanceError):
        last.loss = 0.0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert math.isclose(lines[1]["loss"], np.mean([p.loss for p in seen[4:8]]))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone(
    space, images, make_recipe, tmp_path
) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(weights))
        before = torch.get_rng_state()
        supernet = Supernet(space)
        train(supernet, make_recipe(1), images, folder=tmp_path / name, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(state(supernet))
    assert_equal(weights[0], weights[1])
    assert any(not torch.equal(weights[0][n], weights[2][n]) for n in weights[0])


def test_the_weights_in_the_folder_are_those_of_the_supernet(
    space, images, make_recipe, weights_in, tmp_path
) -> None:
    for decay in (0.0, 0.9):
        supernet = Supernet(space)
        train(supernet, make_recipe(1, ema_decay=decay), images, folder=tmp_path / str(decay))
        assert_equal(weights_in(tmp_path / str(decay)), state(supernet))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(*(weights_in(tmp_path / d).values() for d in ("0.0", "0.9")), strict=True)
    )


def test_accumulation_over_k_batches_is_one_step_on_their_mean_gradient(
    make_space, make_images, tmp_path
) -> None:
    """Without batch norm in the way: one arch, plain SGD, 2 steps of 3 and 1 batches of 4."""
    from search_spaces.choice import Choice
    from search_spaces.space import SearchSpace

    space = SearchSpace(
        "linear",
        [Choice("width", (4, 8))],
        lambda arch: torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(48, arch["width"]), torch.nn.Linear(arch["width"], 4)
        ),
        input_shape=(3, 4, 4),
    )
    images = make_images(steps=4, size=4)
    supernet, reference = Supernet(space), Supernet(space)
    phase = Phase(
        name="p", epochs=1, policy=Sandwich(2, distill=False), momentum=0.0, weight_decay=0.0, accumulate=3
    )
    seen: list[Progress] = []
    train(supernet, Recipe("r", (phase,)), images, folder=tmp_path, report=seen.append)
    for group, progress in zip(([0, 1, 2], [3]), seen, strict=True):
        reference.zero_grad(set_to_none=True)
        for number in group:
            x, y = images.one(0, number)
            for arch in (space.largest, space.smallest):
                (torch.nn.functional.cross_entropy(reference(x, arch), y) / len(group)).backward()
        with torch.no_grad():
            for parameter in reference.parameters():
                parameter -= progress.lr * parameter.grad
    for (name, a), b in zip(supernet.shared_state().items(), reference.shared_state().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_phases_open_options_and_change_weights_at_entry(space, images, tmp_path) -> None:
    entered: list[str] = []
    drawn: list[StepPlan] = []

    class Watched(Uniform):
        def plan(self, space, rng):
            drawn.append(super().plan(space, rng))
            return drawn[-1]

    def enter(supernet) -> None:
        entered.append(f"after {len(drawn)}")

    recipe = Recipe(
        "two",
        (
            Phase(name="big", epochs=1, policy=Watched(1), open={"depth": (2,), "width*": (16,)}),
            Phase(name="all", epochs=2, policy=Watched(2), at_entry=(enter,)),
        ),
    )
    seen: list[Progress] = []
    train(Supernet(space), recipe, images, folder=tmp_path, report=seen.append)
    assert entered == ["after 4"]
    assert [p.phase for p in seen] == ["big"] * 4 + ["all"] * 8
    assert {(a["depth"], a["width0"]) for plan in drawn[:4] for a in plan.archs} == {(2, 16)}
    assert {a["depth"] for plan in drawn[4:] for a in plan.archs} == {1, 2}
    assert images.served == [(e, n) for e in range(3) for n in range(4)]


class Poisoned:
    """Images that are NaN in some batches."""

    def __init__(self, images, bad: set[tuple[int, int]]) -> None:
        self.images, self.bad, self.steps = images, bad, images.steps

    def epoch(self, epoch: int, start: int = 0):
        for number, (x, y) in enumerate(self.images.epoch(epoch, start), start):
            yield (x * math.nan if (epoch, number) in self.bad else x), y


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw", "untouched": "masked", "ema_decay": 0.9}])
def test_a_bad_batch_is_skipped_without_a_trace(space, images, make_recipe, tmp_path, settings) -> None:
    supernet = Supernet(space)
    during: list[dict[str, torch.Tensor]] = []
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        during.append(state(supernet))

    train(
        supernet,
        make_recipe(2, **settings),
        Poisoned(images, {(0, 2), (1, 0)}),
        folder=tmp_path,
        report=report,
    )
    assert [p.skipped for p in seen] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert [math.isnan(p.loss) for p in seen] == [False, False, True, False, True, False, False, False]
    assert_equal(during[1], during[2])
    assert_equal(during[3], during[4])
    assert all(t.isfinite().all() for t in state(supernet).values())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [1, 1]


def test_many_bad_steps_in_a_row_stop_the_training(space, images, make_recipe, tmp_path) -> None:
    bad = {(e, n) for e in range(9) for n in range(4)} - {(0, 0), (0, 3)}
    seen: list[Progress] = []
    with pytest.raises(TrainingDiverged, match=r"^5 steps in a row .* lower lr") as caught:
        train(
            Supernet(space),
            make_recipe(9),
            Poisoned(images, bad),
            folder=tmp_path,
            report=seen.append,
            max_bad_steps=5,
        )
    assert "\n" not in str(caught.value)
    assert len(seen) == 8


def test_masked_training_moves_only_what_was_drawn(space, images, make_recipe, tmp_path) -> None:
    small = SmallestOnly()
    for untouched in ("masked", "dense"):
        supernet = Supernet(space)
        before = state(supernet)
        recipe = make_recipe(1, policy=small, untouched=untouched, weight_decay=0.1)
        train(supernet, recipe, images, folder=tmp_path / untouched)
        after = supernet.shared_state()
        head = "blocks.0.expand.weight"
        assert torch.equal(before[head][8:], after[head][8:]) == (untouched == "masked")
        assert not torch.equal(before[head][:8], after[head][:8])
        assert torch.equal(before["blocks.1.expand.weight"], after["blocks.1.expand.weight"])


class SmallestOnly(SamplingPolicy):
    name = "smallest"

    def plan(self, space, rng):
        return StepPlan((Member(space.smallest),))


def test_mixup_and_bf16_train_too(space, images, make_recipe, tmp_path) -> None:
    supernet = Supernet(space)
    recipe = make_recipe(2, mixup=0.2, optimizer="adamw", lr=0.003)
    train(supernet, recipe, images, folder=tmp_path, precision="bf16")
    assert all(t.isfinite().all() and t.dtype != torch.bfloat16 for t in state(supernet).values())


def test_channels_last_changes_the_layout_only(make_space, images, make_recipe, tmp_path) -> None:
    weights = []
    for layout in (True, False):
        supernet = Supernet(make_space(dropout=0.0))
        train(supernet, make_recipe(1), images, folder=tmp_path / str(layout), channels_last=layout)
        weights.append(state(supernet))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-4)


def test_one_process_per_folder(space, images, make_recipe, tmp_path) -> None:
    with lock(tmp_path), pytest.raises(Busy, match="in use by pid"):
        train(Supernet(space), make_recipe(1), images, folder=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"precision": "fp16"}, "needs a CUDA device"),
        ({"device": "cuda:77"}, "cuda"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_work(
    space, images, make_recipe, tmp_path, wrong, words
) -> None:
    if "device" in wrong and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match=words):
        train(Supernet(space), make_recipe(1), images, folder=tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_a_missing_teacher_and_missing_images_are_said(space, make_images, make_recipe, tmp_path) -> None:
    with pytest.raises(InputError, match="asks for a teacher"):
        train(Supernet(space), make_recipe(1, policy=Uniform(1, "teacher")), make_images(), folder=tmp_path)
    with pytest.raises(InputError, match="phase 'only' of recipe 'tiny' needs a teacher"):
        train(Supernet(space), make_recipe(1, teacher="given"), make_images(), folder=tmp_path / "given")
    assert not (tmp_path / "given").exists()
    with pytest.raises(InputError, match="no batch of training images"):
        train(Supernet(space), make_recipe(1), make_images(steps=0), folder=tmp_path)


def test_an_unknown_optimizer_is_refused_before_anything_is_written(space, make_recipe) -> None:
    with pytest.raises(InputError, match=r"unknown optimizer 'adamx' in phase 'only'; did you mean"):
        check_recipe(make_recipe(1, optimizer="adamx"), space)
