"""The weights of a supernet as a plain state, and what does not fit."""

from __future__ import annotations

import copy

import pytest
import torch
from drawn import assert_equal, draw, images, randomise
from torch import nn

from search_spaces import Arch, Choice, InputError, SearchSpace, SpaceError, mobilenet_v3
from supernets import KernelTransform, Slice, Supernet


def test_the_state_survives_a_round_trip(any_supernet):
    state = {n: t.detach().clone() for n, t in any_supernet.shared_state().items()}
    other = Supernet(any_supernet.space, copy.deepcopy(any_supernet.scheme).__class__(), seed=9)
    pointers = [p.data_ptr() for p in other.parameters()]
    other.load_shared_state(state)
    assert [p.data_ptr() for p in other.parameters()] == pointers
    assert list(other.shared_state()) == list(state)
    assert all(torch.equal(t, state[n]) for n, t in other.shared_state().items())
    assert len(state) == len(any_supernet.state_dict())


def test_a_plain_state_leaves_the_matrices_as_they_are():
    space = mobilenet_v3.space(image_size=16, channels=1, classes=10)
    supernet = randomise(Supernet(space, KernelTransform()))
    matrices = [p.detach().clone() for p in supernet.scheme.parameters()]
    plain = space.build(space.largest).state_dict()
    supernet.load_shared_state(plain)
    assert all(torch.equal(supernet.shared_state()[n], t) for n, t in plain.items())
    assert all(torch.equal(a, b) for a, b in zip(matrices, supernet.scheme.parameters(), strict=True))


def test_a_state_that_does_not_fit_is_refused_and_nothing_changes(any_space):
    supernet = Supernet(any_space, seed=1)
    before = {n: t.detach().clone() for n, t in supernet.shared_state().items()}
    state = {n: t + 1 for n, t in before.items()}
    name = next(reversed(state))
    for wrong, message in (
        ({n: t for n, t in state.items() if n != name}, rf"1 missing \({name}\), 0 unknown"),
        (state | {"extra.weight": torch.zeros(1)}, r"0 missing \(\), 1 unknown \(extra.weight\)"),
        (state | {"scheme.other": torch.zeros(1)}, r"1 unknown \(scheme.other\)"),
        (state | {name: torch.zeros(3, 5)}, rf"{name} is \[3, 5\], not"),
        ({}, "missing"),
    ):
        with pytest.raises(InputError, match=message):
            supernet.load_shared_state(wrong)
        assert all(torch.equal(before[n], t) for n, t in supernet.shared_state().items())


# -- refusals ------------------------------------------------------------------------------------------------


def test_an_arch_of_another_space_is_refused(any_space):
    supernet = Supernet(any_space)
    for use in (supernet.subnet, supernet.extract, lambda arch: supernet.touched([arch])):
        with pytest.raises(SpaceError):
            use(Arch({"nothing": 1}))


def test_options_that_make_it_smaller_are_refused():
    choices = [Choice("left_out", (4, 8)), Choice("b", (4, 8))]
    space = SearchSpace(
        "odd", choices, lambda arch: nn.Linear(12 - arch["left_out"], arch["b"]), input_shape=(8,)
    )
    with pytest.raises(SpaceError, match="order each choice's options from smallest to largest"):
        Supernet(space)


def test_tensors_of_different_ranks_under_one_name_are_refused():
    space = SearchSpace(
        "ranks",
        [Choice("op", ("linear", "conv"))],
        lambda arch: nn.Linear(4, 4) if arch["op"] == "linear" else nn.Conv1d(4, 4, 1),
        input_shape=(4, 4),
    )
    with pytest.raises(SpaceError, match=r"weight 'weight' of 'ranks' .* different ranks"):
        Supernet(space)


def test_print_says_what_it_is(any_space):
    text = repr(Supernet(any_space))
    assert any_space.name in text
    assert "parameters" in text


def test_restricted_spaces_take_the_same_weights(any_space):
    part = any_space.restrict({any_space.choices[-1].name: any_space.choices[-1].options[-1:]})
    whole, narrow = Supernet(any_space, Slice(), seed=4).eval(), Supernet(part, Slice(), seed=4).eval()
    narrow.load_shared_state(whole.shared_state())
    for arch in draw(part, 1):
        x = images(any_space, arch)
        assert_equal(narrow(x, arch).detach(), whole(x, arch).detach())
