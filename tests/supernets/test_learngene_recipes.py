"""The recipes of SWS and TLEG: one depth, a teacher's answers alone; and fine-tuning of one network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learngenes import depths
from torch import Tensor

from nas.resolve import resolve
from search_spaces import InputError
from supernets import Supernet
from supernets.recipes import finetune, sws, tleg
from supernets.trainer import train


class Pictures:
    """Four batches of noise; the labels are shifted by `shift`."""

    steps = 4

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def epoch(self, epoch: int, start: int = 0):
        for number in range(start, self.steps):
            generator = torch.Generator().manual_seed(10 * epoch + number)
            x = torch.randn(8, 1, 8, 8, generator=generator)
            yield x, (torch.arange(8) + self.shift) % 3


def teacher(x: Tensor) -> Tensor:
    """Answers by brightness."""
    return torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3)), x.amax((1, 2, 3))], dim=1)


@pytest.mark.parametrize("module", [sws, tleg])
def test_without_a_teacher_the_labels_teach_and_the_record_says_so(module):
    for name, loss in (("none", "labels"), ("given", "distill")):
        recipe = module.recipe(epochs=3, teacher=name)
        (phase,) = recipe.describe()["phases"]
        assert (phase["teacher"], phase["policy"]["loss"]) == (name, loss)
        assert recipe.scheme == {sws: "stage_shared", tleg: "linear_expansion"}[module]


@pytest.mark.parametrize("module", [sws, tleg])
def test_only_the_auxiliary_s_depth_is_trained(module):
    space = depths(2, 4, 6)
    for wanted, trained in ((0, 6), (4, 4)):
        (phase,) = module.recipe(epochs=3, depth=wanted).phases
        opened = space.restrict(phase.open)
        plan = phase.policy.plan(opened, np.random.default_rng(0))
        assert [member.arch["depth"] for member in plan.members] == [trained]


@pytest.mark.parametrize("module", [sws, tleg])
def test_pure_distillation_sees_no_label(module, tmp_path):
    states = []
    for shift in (0, 1):
        recipe = module.recipe(epochs=1, teacher="given")
        supernet = Supernet(depths(4), resolve("scheme", recipe.scheme)(), seed=1)
        train(supernet, recipe, Pictures(shift), folder=tmp_path / str(shift), teacher=teacher)
        states.append(supernet.shared_state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    fresh = Supernet(depths(4), resolve("scheme", recipe.scheme)(), seed=1).shared_state()
    assert not torch.equal(fresh["head.weight"], states[0]["head.weight"])


def test_a_teacher_that_is_not_there_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="needs a teacher"):
        train(Supernet(depths(2)), sws.recipe(epochs=1, teacher="given"), Pictures(), folder=tmp_path)


def test_fine_tuning_trains_the_largest_network_without_warm_up():
    (phase,) = finetune.recipe(epochs=5).phases
    opened = depths(2, 4, embed_dims=(8, 16)).restrict(phase.open)
    assert opened.size == 1
    assert opened.largest == depths(2, 4, embed_dims=(8, 16)).largest
    assert phase.warmup_epochs == 0
