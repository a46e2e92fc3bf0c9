"""SortedNet's promises: an even draw from the list, one arch per micro-batch, nothing beyond the union."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces import Choice, InputError, SearchSpace, SpaceError, gpt
from search_spaces.nesting import grid
from supernets import Supernet
from supernets.plan import Member, StepPlan
from supernets.policies.exits import Exits
from supernets.policies.nested_list import NestedList
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe
from supernets.recipes import sortednet
from supernets.step import backward, step_rng
from supernets.trainer import train

WIDTHS = (4, 8, 12, 16)


def linear() -> SearchSpace:
    """No batch norm in the way: a hidden layer of four widths, twice over."""
    return SearchSpace(
        "linear",
        [Choice("a.width", WIDTHS), Choice("b.width", WIDTHS)],
        lambda arch: nn.Sequential(
            nn.Flatten(),
            nn.Linear(48, arch["a.width"]),
            nn.ReLU(),
            nn.Linear(arch["a.width"], arch["b.width"]),
            nn.ReLU(),
            nn.Linear(arch["b.width"], 4),
        ),
        input_shape=(3, 4, 4),
    )


def plain(n: int, **more) -> Recipe:
    """SGD without momentum or decay, so that a step is the gradient."""
    phase = Phase(
        name="p", epochs=1, policy=NestedList(n), momentum=0.0, weight_decay=0.0, accumulate=n, **more
    )
    return Recipe("r", (phase,))


def test_members_are_drawn_evenly_and_a_seed_repeats_the_draws(make_space) -> None:
    space = linear()
    policy, steps = NestedList(4), 1000
    drawn = [arch for step in range(steps) for arch in policy.plan(space, step_rng(3, step)).archs]
    assert drawn == [a for step in range(steps) for a in policy.plan(space, step_rng(3, step)).archs]
    counts, members = Counter(drawn), policy.listed(space)
    assert counts.keys() == set(members)
    assert len(members) == 4
    p = 1 / len(members)
    for arch in members:
        assert abs(counts[arch] / len(drawn) - p) < 4 * math.sqrt(p * (1 - p) / len(drawn))


def test_a_list_that_is_no_full_grid_is_drawn_evenly_too(make_space) -> None:
    """One narrow network and seven deep ones: the even draw per choice would take the first half the time."""
    space = make_space().restrict({"resolution": (12,)})
    members = grid(space, ("depth", "width0", "width1"))
    assert len(members) == 2 + 2 * 3
    policy = NestedList(8, ("depth", "width0", "width1"))
    drawn = [a for step in range(500) for a in policy.plan(space, step_rng(0, step)).archs]
    assert abs(sum(a["depth"] == 1 for a in drawn) / 4000 - 0.25) < 0.03


def test_each_member_runs_on_a_batch_of_its_own_and_the_step_is_their_mean(make_images, tmp_path) -> None:
    """10 batches, 4 to a step: the last step has two batches and takes the first two members of its plan."""
    space, images = linear(), make_images(steps=10, size=4)
    supernet, reference = Supernet(space), Supernet(space)
    seen = []
    train(supernet, plain(4), images, folder=tmp_path, seed=7, report=seen.append)
    for step, group in enumerate(([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])):
        members = NestedList(4).plan(space, step_rng(7, step)).archs
        reference.zero_grad(set_to_none=True)
        losses = []
        for arch, number in zip(members, group, strict=False):
            x, y = images.one(0, number)
            loss = F.cross_entropy(reference(x, arch), y)
            (loss / len(group)).backward()
            losses.append(loss.item())
        assert math.isclose(seen[step].loss, losses[0], rel_tol=1e-5)
        with torch.no_grad():
            for parameter in reference.parameters():
                parameter -= seen[step].lr * parameter.grad
    for name, parameter in supernet.named_parameters():
        torch.testing.assert_close(parameter, reference.get_parameter(name), msg=name)


def test_what_no_drawn_member_uses_does_not_move_without_momentum_and_decay(make_images, tmp_path) -> None:
    space = linear()
    small = space.smallest
    phase = Phase(
        name="p",
        epochs=1,
        policy=NestedList(2, archs=(small, space.arch({"a.width": 8, "b.width": 8}))),
        momentum=0.0,
        weight_decay=0.0,
        accumulate=2,
    )
    supernet = Supernet(space)
    before = {n: p.detach().clone() for n, p in supernet.named_parameters()}
    train(supernet, Recipe("r", (phase,)), make_images(steps=8, size=4), folder=tmp_path)
    touched = supernet.touched(phase.policy.listed(space))
    for name, parameter in supernet.named_parameters():
        mask = touched[name]
        if mask is not None:
            assert torch.equal(parameter[~mask], before[name][~mask]), name
            assert not parameter.grad
    assert not torch.equal(supernet.shared["1.weight"][:4], before["shared.1.weight"][:4])


def test_a_unit_is_trained_as_often_as_a_member_above_it_is_drawn() -> None:
    space, supernet = linear(), Supernet(linear())
    policy, steps = NestedList(1), 400
    trained = torch.zeros(16)
    for step in range(steps):
        mask = supernet.touched(policy.plan(space, step_rng(1, step)).archs)["shared.1.weight"]
        trained += 1 if mask is None else mask[:, 0]
    assert (trained.diff() <= 0).all()
    for unit in (0, 4, 8, 12):
        p = sum(width > unit for width in WIDTHS) / 4
        assert abs(trained[unit] / steps - p) <= 4 * math.sqrt(p * (1 - p) / steps)


def test_slices_of_members_share_their_storage() -> None:
    space, supernet = linear(), Supernet(linear())
    modules = [supernet.subnet(arch) for arch in grid(space)]
    for small, large in pairwise(modules):
        for name, weight in small.named_parameters():
            assert weight.data_ptr() == dict(large.named_parameters())[name].data_ptr()


def test_a_plan_that_does_not_fit_its_batches_is_refused(make_images, tmp_path) -> None:
    phase = Phase(name="p", epochs=1, policy=NestedList(3), accumulate=2)
    with pytest.raises(InputError, match=r"gives 3 archs a batch each, but phase 'p' accumulates 2"):
        train(Supernet(linear()), Recipe("r", (phase,)), make_images(size=4), folder=tmp_path)
    arch = linear().largest
    with pytest.raises(ValueError, match="no in-place teacher"):
        StepPlan((Member(arch), Member(arch, "inplace")), spread=True)


def test_masked_weights_and_a_resume_go_with_it(make_images, tmp_path) -> None:
    """A run in two halves is the run in one; the optimiser's state of what no member used stays zero."""
    from supernets.interrupt import Interrupted

    space, images = linear(), make_images(steps=6, size=4)
    recipe = sortednet.recipe(epochs=2, n=2, untouched="masked", archs=[dict(space.smallest)])
    whole, halves = Supernet(space), Supernet(space)
    start = {n: p.detach().clone() for n, p in whole.named_parameters()}
    train(whole, recipe, images, folder=tmp_path / "whole")

    def stop(progress):
        if progress.step == 4:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(halves, recipe, images, folder=tmp_path / "halves", report=stop)
    halves = Supernet(space)
    train(halves, recipe, images, folder=tmp_path / "halves")
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, halves.get_parameter(name)), name
        mask = whole.touched([space.smallest])[name]
        if mask is not None:
            assert torch.equal(parameter[~mask], start[name][~mask]), name


def test_settings_travel_as_json_and_wrong_ones_are_named() -> None:
    space = linear()
    for policy in (NestedList(3, ("*.width",)), NestedList(2, archs=(space.smallest,)), Exits((1, 2))):
        again = type(policy)(**json.loads(json.dumps(dict(policy.settings))))
        assert again == policy
    with pytest.raises(InputError, match="at least 1"):
        NestedList(0)
    with pytest.raises(InputError, match="not by both"):
        NestedList(1, ("*.width",), (space.smallest,))
    for wrong in ((), (0, 1), (2, 1), (1, 1), (1.5,)):
        with pytest.raises(InputError, match="exits"):
            Exits(wrong)
    with pytest.raises(InputError, match="leave dimensions and archs out"):
        sortednet.recipe(exits=(1,), dimensions=("depth",))
    with pytest.raises(SpaceError, match="not an option"):
        NestedList(1, archs=({"a.width": 5, "b.width": 4},)).plan(space, step_rng(0, 0))
    assert Uniform().listed(space) == ()


class Deep(nn.Module):
    """Blocks, one norm and one head for every exit."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(48, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        return self.exits(x, (len(self.blocks),))[0]

    def exits(self, x, depths):
        x, found = self.stem(x.flatten(1)), []
        for number, block in enumerate(self.blocks, start=1):
            x = x + block(x).relu()
            if number in depths:
                found.append(self.head(self.norm(x)))
        return found


DEEP = SearchSpace(
    "deep", [Choice("depth", (1, 2, 4))], lambda arch: Deep(arch["depth"]), input_shape=(3, 4, 4)
)


def grads(supernet: Supernet, plan: StepPlan, x, targets) -> dict[str, torch.Tensor]:
    supernet.zero_grad(set_to_none=True)
    backward(supernet, plan, x, targets)
    return {n: p.grad.clone() for n, p in supernet.named_parameters() if p.grad is not None}


def test_the_gradient_of_all_exits_is_the_mean_of_theirs_and_no_parameter_is_added(make_images) -> None:
    supernet = Supernet(DEEP)
    x, y = make_images(size=4).one(0, 0)
    targets = F.one_hot(y, 4).float()
    plan = Exits((1, 2, 4)).plan(DEEP, step_rng(0, 0))
    whole = grads(supernet, plan, x, targets)
    single = [grads(supernet, StepPlan((Member(a),)), x, targets) for a in Exits((1, 2, 4)).listed(DEEP)]
    for name, grad in whole.items():
        mean = sum(part[name] for part in single if name in part) / 3
        torch.testing.assert_close(grad, mean, rtol=1e-4, atol=1e-6)
    alone = sum(p.numel() for p in DEEP.build(DEEP.largest).parameters())
    assert sum(p.numel() for p in supernet.parameters()) == alone


def test_the_last_exit_is_the_plain_model_and_each_exit_a_subnet(make_images) -> None:
    supernet = Supernet(DEEP).eval()
    x, _ = make_images(size=4).one(0, 0)
    largest = supernet.subnet(DEEP.largest)
    for depth, logits in zip((1, 2, 4), largest.exits(x, (1, 2, 4)), strict=True):
        assert torch.equal(logits, supernet(x, DEEP.arch({"depth": depth})))


def test_the_recipe_with_exits_trains_all_depths(make_images, tmp_path) -> None:
    recipe = sortednet.recipe(epochs=3, lr=3e-2, exits=(1, 2, 4))
    assert recipe.phases[0].accumulate == 1
    supernet, images = Supernet(DEEP), make_images(steps=8, size=4)
    train(supernet, recipe, images, folder=tmp_path)
    x, y = images.one(9, 0)
    for arch in Exits((1, 2, 4)).listed(DEEP):
        assert (supernet(x, arch).argmax(1) == y).float().mean() > 0.8


GPT = gpt.space(
    classes=16,
    context=8,
    depths=(1, 2, 4),
    embed_dims=(8,),
    heads=(2,),
    kv_group=1,
    head_dim=4,
    ffn_ratios=(2.0,),
)


def test_a_language_model_learns_at_all_its_exits_as_if_each_were_trained_for_itself() -> None:
    """SoFT on the real network: the mean of the gradients of the three depths, in one pass."""
    supernet = Supernet(GPT)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 16, (2, 3, 8), generator=generator)
    targets = F.one_hot(y, 16).float()
    policy = Exits((1, 2, 4))
    whole = grads(supernet, policy.plan(GPT, step_rng(0, 0)), x, targets)
    single = [grads(supernet, StepPlan((Member(a),)), x, targets) for a in policy.listed(GPT)]
    for name, grad in whole.items():
        mean = sum(part[name] for part in single if name in part) / 3
        torch.testing.assert_close(grad, mean, rtol=1e-4, atol=1e-6)
    assert len(whole) == len(list(supernet.parameters()))
    alone = sum(p.numel() for p in GPT.build(GPT.largest).parameters())
    assert sum(p.numel() for p in supernet.parameters()) == alone


def test_an_exit_that_the_network_does_not_have_is_refused() -> None:
    supernet = Supernet(GPT)
    x = GPT.example(GPT.largest)
    with pytest.raises(InputError, match="exit 9 is not between 1 and the network's 4 blocks"):
        grads(supernet, Exits((1, 9)).plan(GPT, step_rng(0, 0)), x, F.one_hot(x, 16).float())
    with pytest.raises(SpaceError, match="the largest of 'gpt' has 4 blocks"):
        Exits((1, 9)).listed(GPT)
    with pytest.raises(SpaceError, match="the networks of 'linear' have no exits"):
        Exits((1, 2)).listed(linear())
    assert [a["depth"] for a in Exits((1, 3, 4)).listed(GPT)] == [1, 4]  # an exit, but no subnet, after 3
