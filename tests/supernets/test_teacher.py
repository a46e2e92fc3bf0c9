"""Frozen and given teachers: what they teach, what they see, and that a resumed training has the same one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from search_spaces.errors import InputError
from supernets.checkpoint import CheckpointError
from supernets.evaluate import calibrated, channels_last, resize_to
from supernets.losses import distillation, soft_cross_entropy, soft_targets
from supernets.plan import Member, SamplingPolicy, StepPlan
from supernets.policies.sandwich import Sandwich
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe
from supernets.step import backward, step_rng
from supernets.supernet import Supernet
from supernets.teacher import freeze_largest, load_frozen
from supernets.trainer import Progress, train


def taught(teacher: str = "largest", loss: str = "teacher", **settings: object) -> Recipe:
    """One phase that changes the largest subnet, then two that learn from it as it was between them."""
    pupils = {"policy": Uniform(2, loss, one_resolution=True), "teacher": teacher, "lr": 0.02, **settings}
    return Recipe(
        "taught",
        (
            Phase(name="big", epochs=1, policy=Uniform(1), open={"*": 1}, lr=0.05),
            Phase(name="some", epochs=1, open={"width*": 2}, **pupils),
            Phase(name="all", epochs=1, **pupils),
        ),
    )


def digest(folder: Path) -> str:
    return json.loads((folder / "supernet.json").read_text())["sha256"]


@pytest.mark.parametrize("divergence", ["kl", "alpha"])
@pytest.mark.parametrize("loss", ["teacher", "distill"])
def test_soft_losses_are_what_they_say(make_space, images, loss, divergence) -> None:
    supernet = Supernet(make_space(dropout=0.0))
    x, y = images.one(0, 0)
    targets = soft_targets(y, supernet.space.classes, 0.1)
    logits_of_teacher = torch.randn(len(y), supernet.space.classes)
    plan = StepPlan((Member(supernet.space.smallest, loss, weight=2.0),))
    settings = {"kd_ratio": 0.7, "divergence": divergence}
    values, logits = backward(supernet, plan, x, targets, teacher=lambda _: logits_of_teacher, **settings)
    soft = distillation(logits, logits_of_teacher, divergence)
    expected = soft_cross_entropy(logits, targets) + 0.7 * soft if loss == "teacher" else soft
    torch.testing.assert_close(values, 2.0 * expected[None])


def test_in_place_teachers_take_the_divergence_too(make_space, images) -> None:
    supernet = Supernet(make_space(dropout=0.0))
    x, y = images.one(0, 0)
    plan = Sandwich(2).plan(supernet.space, step_rng(0, 0))
    targets = soft_targets(y, supernet.space.classes)
    values, first = backward(supernet, plan, x, targets, divergence="alpha")
    small = supernet.subnet(supernet.space.smallest).train()
    logits = small(resize_to(x, supernet.space.input_shape(supernet.space.smallest)))
    torch.testing.assert_close(values[1], distillation(logits, first, "alpha").detach())


def test_the_teacher_is_asked_once_and_sees_images_at_their_own_size(space, images) -> None:
    asked: list[tuple[int, ...]] = []

    def teacher(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        asked.append(tuple(x.shape))
        return torch.zeros(len(x), 4)

    supernet = Supernet(space)
    x, y = images.one(0, 0)
    small = space.smallest
    members = (Member(small, "teacher"), Member(small, "labels"), Member(small, "distill"))
    backward(supernet, StepPlan(members), x, soft_targets(y, 4), teacher=teacher)
    assert space.input_shape(small)[-1] < x.shape[-1]
    assert asked == [tuple(x.shape)]


def test_a_frozen_teacher_is_the_calibrated_largest_and_does_not_move(space, images, tmp_path) -> None:
    supernet = Supernet(space)
    with torch.no_grad():
        for p in supernet.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    path = tmp_path / "teacher.safetensors"
    freeze_largest(path, supernet, images.epoch(0))
    teacher = load_frozen(path, supernet)
    reference = calibrated(supernet, space.largest, [images.one(0, n)[0] for n in range(images.steps)])
    x = torch.randn(3, *space.input_shape(space.largest))
    with torch.no_grad():
        expected = reference(channels_last(x))
        assert torch.equal(teacher(x), expected)
        small = resize_to(x, (3, 8, 8))
        assert torch.equal(teacher(small), reference(channels_last(resize_to(small, x.shape))))
        for tensor in supernet.shared_state().values():
            tensor.add_(1)
        assert torch.equal(teacher(x), expected)
        assert torch.equal(load_frozen(path, supernet)(x), expected)
    assert not any(p.requires_grad for p in teacher.module.parameters())
    assert not any(m.training for m in teacher.module.modules())


def test_phases_in_a_row_keep_the_teacher_of_the_first(space, images, tmp_path) -> None:
    train(Supernet(space), taught(), images, folder=tmp_path)
    assert sorted(p.name for p in tmp_path.glob("teacher*")) == ["teacher-2.json", "teacher-2.safetensors"]
    phases = taught().phases
    again = Recipe("again", (*phases, phases[0], phases[2]))
    train(Supernet(space), again, images, folder=tmp_path / "again")
    assert {p.stem for p in (tmp_path / "again").glob("teacher*")} == {"teacher-2", "teacher-5"}


class Crash(Exception):
    pass


@pytest.mark.parametrize("stops", [(3,), (4,), (5, 6), (8,), (9,)])
def test_a_frozen_teacher_survives_a_kill_bit_for_bit(make_space, make_images, tmp_path, stops) -> None:
    """4 steps per phase: killed before, at and after the moment at which the teacher is frozen."""

    def report(progress: Progress) -> None:
        if progress.step in remaining:
            remaining.remove(progress.step)
            raise Crash

    remaining = list(stops)
    whole = {"folder": tmp_path / "whole", "seed": 5}
    train(Supernet(make_space(), seed=3), taught(divergence="alpha"), make_images(), **whole)
    while True:
        again = {"folder": tmp_path / "again", "seed": 5, "checkpoint_minutes": 0, "report": report}
        try:
            train(Supernet(make_space(), seed=3), taught(divergence="alpha"), make_images(), **again)
            break
        except Crash:
            continue
    assert digest(tmp_path / "again") == digest(tmp_path / "whole")


def test_a_teacher_that_is_missing_or_of_another_space_is_said(space, images, make_space, tmp_path) -> None:
    def report(progress: Progress) -> None:
        if progress.step == 6:
            raise Crash

    run = {"folder": tmp_path, "checkpoint_minutes": 0}
    with pytest.raises(Crash):
        train(Supernet(space), taught(), images, report=report, **run)
    other = make_space(dropout=0.5)
    with pytest.raises(CheckpointError, match="is the teacher of another search space than 'tiny'"):
        load_frozen(tmp_path / "teacher-2.safetensors", Supernet(other))
    (tmp_path / "teacher-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"teacher-2.safetensors is missing"):
        train(Supernet(space), taught(), images, **run)


def test_a_given_teacher_teaches(make_space, images, tmp_path) -> None:
    """Pupils that see no label learn what the teacher says, here the class after the true one."""
    means = torch.stack([images.one(9, n)[0][images.one(9, n)[1] == c].mean((0, 2, 3))
                         for c in range(4) for n in range(1)])  # fmt: skip

    def teacher(x: Tensor) -> Tensor:
        nearest = torch.cdist(x.mean((2, 3)), means).argmin(1)
        return 10.0 * torch.nn.functional.one_hot((nearest + 1) % 4, 4).float()

    supernet = Supernet(make_space(dropout=0.0))
    phase = Phase(name="p", epochs=10, policy=Uniform(2, "distill"), teacher="given", lr=0.05)
    train(supernet, Recipe("r", (phase,)), images, folder=tmp_path, teacher=teacher)
    x, y = images.one(77, 0)
    space = supernet.space
    module = calibrated(supernet, space.largest, [images.one(0, n)[0] for n in range(4)])
    assert ((module(x).argmax(1) == (y + 1) % 4).float().mean()) > 0.8


def test_a_policy_that_asks_for_a_teacher_needs_a_phase_that_has_one(space, images, tmp_path) -> None:
    with pytest.raises(InputError, match=r"asks for a teacher, which phase 'some' does not have"):
        train(Supernet(space), taught("none"), images, folder=tmp_path)


class Matrices(SamplingPolicy):
    name = "matrices"

    def plan(self, space, rng):
        return StepPlan((Member(space.largest), Member(space.smallest)))


def test_frozen_patterns_do_not_move_and_the_rest_does(space, images, tmp_path) -> None:
    supernet = Supernet(space)
    before = {n: t.detach().clone() for n, t in supernet.shared_state().items()}
    frozen = ("blocks.*.project.weight", "stem.weight")
    phase = Phase(name="p", epochs=1, policy=Matrices(), frozen=frozen, weight_decay=0.1)
    train(supernet, Recipe("r", (phase,)), images, folder=tmp_path)
    after = supernet.shared_state()
    kept = {n for n, t in after.items() if torch.equal(t, before[n])}
    assert kept == {n for n in before if n.endswith("project.weight") or n == "stem.weight"}


def test_one_resolution_for_all_members_of_a_step(space) -> None:
    sizes = [
        {arch["resolution"] for arch in Uniform(3, one_resolution=True).plan(space, step_rng(0, s)).archs}
        for s in range(20)
    ]
    assert {len(seen) for seen in sizes} == {1}
    assert set().union(*sizes) == {8, 12}
    mixed = [{arch["resolution"] for arch in Uniform(3).plan(space, step_rng(0, s)).archs} for s in range(20)]
    assert {len(seen) for seen in mixed} == {1, 2}
    with pytest.raises(InputError, match="unknown loss 'label' of uniform sampling; did you mean 'labels'"):
        Uniform(1, "label")
