from __future__ import annotations

import pytest
import torch

from search_spaces.errors import InputError
from supernets.losses import soft_targets
from supernets.masked import untouched_kept
from supernets.optimiser import make_optimizer
from supernets.plan import Member, StepPlan
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase
from supernets.step import backward
from supernets.supernet import Supernet


def one_step(supernet, optimizer, archs, images, number: int, masked: bool) -> None:
    x, y = images.one(0, number)
    optimizer.zero_grad(set_to_none=True)
    targets = soft_targets(y, supernet.space.classes)
    backward(supernet, StepPlan(tuple(Member(a, regularise=False) for a in archs)), x, targets)
    if masked:
        with untouched_kept(supernet, optimizer, archs):
            optimizer.step()
    else:
        optimizer.step()


def untouched_of(supernet, archs):
    touched = supernet.touched(archs)
    out = {}
    for name, parameter in supernet.named_parameters():
        mask = touched.get(name, torch.zeros((), dtype=torch.bool)) if name in touched else False
        if mask is None:
            continue
        out[name] = ~torch.as_tensor(mask).expand_as(parameter)
    return out


def entrywise(optimizer, parameter):
    state = optimizer.state.get(parameter, {})
    return {k: v for k, v in state.items() if torch.is_tensor(v) and v.shape == parameter.shape}


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw", "lion"])
def test_masked_entries_keep_value_and_state_and_dense_ones_do_not(space, images, optimizer_name) -> None:
    phase = Phase(name="p", epochs=1, policy=Uniform(), optimizer=optimizer_name, lr=0.05, weight_decay=0.1)
    small = [space.smallest]
    for masked in (True, False):
        supernet = Supernet(space, seed=1)
        optimizer = make_optimizer(supernet, phase)
        for number in range(3):  # momentum everywhere first
            one_step(supernet, optimizer, [space.largest], images, number, masked)
        before = {n: p.detach().clone() for n, p in supernet.named_parameters()}
        state = {
            n: {k: v.clone() for k, v in entrywise(optimizer, p).items()}
            for n, p in supernet.named_parameters()
        }
        for number in range(2):
            one_step(supernet, optimizer, small, images, number, masked)
        moved = 0
        for name, parameter in supernet.named_parameters():
            off = untouched_of(supernet, small).get(name)
            if off is None or not off.any():
                continue
            same = torch.equal(parameter[off], before[name][off])
            for key, value in entrywise(optimizer, parameter).items():
                same = same and torch.equal(value[off], state[name][key][off])
            if masked or off.all():  # a tensor that no arch used has no gradient: still in both
                assert same, name
            else:
                moved += not same
            if not off.all():
                assert not torch.equal(parameter[~off], before[name][~off]), name
        assert masked or moved > 3


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
def test_touched_entries_move_the_same_masked_or_dense(space, images, optimizer_name) -> None:
    phase = Phase(name="p", epochs=1, policy=Uniform(), optimizer=optimizer_name, lr=0.05, weight_decay=0.1)
    results = []
    for masked in (True, False):
        supernet = Supernet(space, seed=1)
        optimizer = make_optimizer(supernet, phase)
        one_step(supernet, optimizer, [space.largest], images, 0, masked)
        one_step(supernet, optimizer, [space.smallest], images, 1, masked)
        results.append({n: p.detach().clone() for n, p in supernet.named_parameters()})
    for name, off in untouched_of(supernet, [space.smallest]).items():
        assert torch.equal(results[0][name][~off], results[1][name][~off])


def test_plain_sgd_leaves_untouched_entries_alone_even_dense(space, images) -> None:
    supernet = Supernet(space, seed=1)
    phase = Phase(name="p", epochs=1, policy=Uniform(), optimizer="sgd", momentum=0.0, weight_decay=0.0)
    optimizer = make_optimizer(supernet, phase)
    before = {n: p.detach().clone() for n, p in supernet.named_parameters()}
    for number in range(3):
        one_step(supernet, optimizer, [space.smallest], images, number, masked=False)
    for name, off in untouched_of(supernet, [space.smallest]).items():
        assert torch.equal(dict(supernet.named_parameters())[name][off], before[name][off]), name


def test_a_first_step_makes_no_momentum_of_weight_decay_for_untouched_entries(space, images) -> None:
    supernet = Supernet(space, seed=1)
    phase = Phase(name="p", epochs=1, policy=Uniform(), optimizer="sgd", weight_decay=0.5)
    optimizer = make_optimizer(supernet, phase)
    one_step(supernet, optimizer, [space.smallest], images, 0, masked=True)
    for name, parameter in supernet.named_parameters():
        off = untouched_of(supernet, [space.smallest]).get(name)
        for value in entrywise(optimizer, parameter).values():
            assert off is None or not value[off].any(), name


def test_an_optimiser_whose_state_begins_above_zero_is_refused_for_masked(space) -> None:
    phase = Phase(name="p", epochs=1, policy=Uniform(), optimizer="rmsproptf", untouched="masked")
    with pytest.raises(InputError, match="rmsproptf"):
        make_optimizer(Supernet(space), phase)


def test_an_unknown_optimiser_gets_a_suggestion(space) -> None:
    with pytest.raises(InputError, match="did you mean 'adam'"):
        make_optimizer(Supernet(space), Phase(name="p", epochs=1, policy=Uniform(), optimizer="adamv"))
