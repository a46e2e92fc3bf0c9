"""Once-for-All's training: the stages, what each opens, and that one command's worth of it learns."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Choice, InputError, SearchSpace, mobilenet_v3, vit
from supernets import Supernet
from supernets.channel_sort import SortChannels
from supernets.evaluate import evaluate
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe
from supernets.recipes.progressive_shrinking import recipe, split
from supernets.schemes import KernelTransform
from supernets.step import step_rng
from supernets.trainer import train


def tiny() -> SearchSpace:
    two = {"depths": (1, 2), "kernels": (3, 5), "expands": (1, 2), "resolutions": (8, 12)}
    return mobilenet_v3.space(image_size=12, classes=4, width=0.5, **two)


def opened(space: SearchSpace, phase: Phase) -> dict[str, tuple[object, ...]]:
    return {c.name: c.options for c in space.restrict(phase.open).choices if len(c.options) > 1}


def test_the_stages_open_kernel_then_depth_then_width() -> None:
    space = mobilenet_v3.space(resolutions=range(128, 225, 4))
    phases = recipe().fitted(space).phases
    assert [p.name for p in phases] == ["largest", "kernel", "depth 1", "depth 2", "width 1", "width 2"]
    kinds = []
    for phase in phases:
        names = opened(space, phase)
        assert names.pop("resolution") == tuple(range(128, 225, 4))
        kinds.append({name.rpartition(".")[2]: options for name, options in names.items()})
    all_kernels, all_depths = {"kernel": (3, 5, 7)}, {"depth": (2, 3, 4)}
    assert kinds == [
        {},
        all_kernels,
        all_kernels | {"depth": (3, 4)},
        all_kernels | all_depths,
        all_kernels | all_depths | {"expand": (4, 6)},
        all_kernels | all_depths | {"expand": (3, 4, 6)},
    ]
    assert space.restrict(phases[-1].open).size == space.size


def test_who_learns_from_whom_and_how_many_at_a_step() -> None:
    phases = recipe().phases
    assert [p.policy for p in phases] == [
        Uniform(n, loss, one_resolution=True)
        for n, loss in zip((1, 1, 2, 2, 4, 4), ["labels"] + ["teacher"] * 5, strict=True)
    ]
    assert [p.teacher for p in phases] == ["none"] + ["largest"] * 5
    assert [round(p.lr, 4) for p in phases] == [0.1, 0.05, 0.01, 0.03, 0.01, 0.03]
    assert {p.label_smoothing for p in phases} == {0.1}
    assert recipe().scheme == "kernel_transform"
    given_one = recipe(teacher="given").phases
    assert {p.teacher for p in given_one} == {"given"}
    assert {p.policy.settings["loss"] for p in given_one} == {"teacher"}
    assert [bool(p.frozen) for p in recipe(freeze_matrices=True).phases] == [False] * 2 + [True] * 4


def test_channels_are_sorted_before_each_width_opens_within_what_was_trained() -> None:
    phases = recipe().phases
    assert [p.at_entry for p in phases[:4]] == [()] * 4
    assert [p.at_entry for p in phases[4:]] == [(SortChannels(p.open),) for p in phases[3:5]]


@given(st.integers(6, 400), st.integers(1, 9))
def test_epochs_are_split_in_proportion_and_none_is_lost(total: int, seed: int) -> None:
    shares = np.random.default_rng(seed).integers(1, 30, size=6).tolist()
    parts = split(total, shares)
    assert sum(parts) == total
    assert min(parts) >= 1
    spare = [part - 1 - (total - 6) * share / sum(shares) for part, share in zip(parts, shares, strict=True)]
    assert all(-1 < value < 1 for value in spare)


def test_the_default_epochs_are_those_of_the_stages() -> None:
    assert [p.epochs for p in recipe(epochs=66).phases] == [28, 10, 4, 10, 4, 10]
    for epochs in (6, 7, 100):
        json.dumps(recipe(epochs=epochs).describe(), allow_nan=False)
        assert recipe(epochs=epochs).epochs == epochs
    with pytest.raises(InputError, match="6 stages of at least one epoch; epochs is 5"):
        recipe(epochs=5)


def test_a_space_without_kernels_skips_their_stage_and_keeps_the_epochs() -> None:
    fitted = recipe(epochs=66).fitted(vit.space(image_size=32, classes=10))
    assert [p.name for p in fitted.phases] == ["largest", "depth 1", "depth 2", "width 1", "width 2"]
    assert fitted.epochs == 66
    assert fitted.phases[1].epochs == 14
    assert fitted.fitted(vit.space(image_size=32, classes=10)) == fitted


def test_a_space_with_width_alone_has_two_stages(space) -> None:
    del space
    only = SearchSpace("w", [Choice("width", (1, 2))], lambda arch: torch.nn.Linear(arch["width"], 1),
                       input_shape=(2,))  # fmt: skip
    fitted = recipe(epochs=66).fitted(only)
    assert [(p.name, p.epochs) for p in fitted.phases] == [("largest", 28), ("width 1", 38)]


def test_one_recipe_trains_its_teacher_and_every_stage(make_images, tmp_path) -> None:
    space = tiny()
    images = make_images(steps=5, batch=24)
    supernet = Supernet(space, KernelTransform())
    whole = recipe(epochs=10, lr=0.1, weight_decay=1e-4)
    train(supernet, whole, images, folder=tmp_path, seed=1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # Two options per choice: the first of two stages opens both, the second one's epochs go on with it.
    assert list(dict.fromkeys(line["phase"] for line in lines)) == ["largest", "kernel", "depth 1", "width 1"]
    assert len(lines) == 10
    assert [p.name for p in tmp_path.glob("teacher-*.safetensors")] == ["teacher-2.safetensors"]
    held_out = [images.one(99, n) for n in range(4)]
    accuracy = evaluate(
        supernet, [space.largest, space.smallest], held_out, [images.one(0, n)[0] for n in range(4)]
    )
    assert (accuracy > 0.5).all(), accuracy


def test_frozen_matrices_stay_at_what_the_kernel_stage_made_of_them(make_images, tmp_path) -> None:
    space = tiny()
    images = make_images(steps=2, batch=8)
    after: dict[int, torch.Tensor] = {}
    supernet = Supernet(space, KernelTransform())
    name = next(n for n in supernet.shared_state() if n.startswith("scheme.matrices.blocks.1.0"))
    fitted = recipe(epochs=6, freeze_matrices=True).fitted(space)
    ends = np.cumsum([p.epochs * 2 for p in fitted.phases]).tolist()

    def report(progress) -> None:
        if progress.step in ends:
            after[ends.index(progress.step)] = supernet.shared_state()[name].detach().clone()

    train(supernet, fitted, images, folder=tmp_path, report=report)
    assert torch.equal(after[0], torch.eye(9))
    assert all(torch.equal(after[i], after[1]) for i in range(2, len(ends)))


def test_ranks_that_know_seed_and_step_train_the_same_archs() -> None:
    space = mobilenet_v3.space(image_size=32)
    for phase in recipe().phases:
        part = space.restrict(phase.open)
        plans = [phase.policy.plan(part, step_rng(7, 123)) for _ in range(2)]
        assert plans[0] == plans[1]
        assert len({arch["resolution"] for arch in plans[0].archs}) == 1


def test_recipes_without_skippable_phases_are_left_alone(space) -> None:
    phases = (Phase(name="a", epochs=1, policy=Uniform()), Phase(name="b", epochs=2, policy=Uniform()))
    assert Recipe("r", phases).fitted(space) == Recipe("r", phases)
