from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import InputError
from supernets.plan import Member, StepPlan
from supernets.policies.sandwich import Sandwich
from supernets.policies.uniform import Uniform
from supernets.step import step_rng


def test_a_sandwich_is_largest_smallest_then_random_every_step(space) -> None:
    for step in range(50):
        plan = Sandwich(4).plan(space, step_rng(0, step))
        assert plan.archs[0] == space.largest
        assert plan.archs[1] == space.smallest
        assert [m.loss for m in plan.members] == ["labels", "inplace", "inplace", "inplace"]
        assert [m.regularise for m in plan.members] == [True, False, False, False]
        assert all(space.arch(arch) == arch for arch in plan.archs)
    assert {m.loss for m in Sandwich(3, distill=False).plan(space, step_rng(0, 0)).members} == {"labels"}


@given(st.integers(0, 2**40), st.integers(0, 10**9))
def test_the_same_seed_and_step_give_the_same_plan(seed: int, step: int) -> None:
    from search_spaces.choice import Choice
    from search_spaces.space import SearchSpace

    choices = [Choice(f"c{i}", (1, 2, 3)) for i in range(6)]
    space = SearchSpace("s", choices, lambda arch: None, input_shape=(3, 8, 8))
    for policy in (Sandwich(5), Uniform(3)):
        first, second = (policy.plan(space, step_rng(seed, step)) for _ in range(2))
        assert first == second


def test_steps_and_seeds_differ(space) -> None:
    plans = {Uniform(3).plan(space, step_rng(seed, step)) for seed in range(4) for step in range(8)}
    assert len(plans) > 16


def test_uniform_visits_every_option_evenly(space) -> None:
    rng = np.random.default_rng(0)
    widths = [arch["width0"] for _ in range(400) for arch in Uniform(2).plan(space, rng).archs]
    assert 0.44 < widths.count(8) / len(widths) < 0.56


def test_a_restricted_space_has_its_own_largest(space) -> None:
    plan = Sandwich(2).plan(space.restrict({"depth": (1,)}), step_rng(0, 0))
    assert plan.archs[0]["depth"] == 1
    assert "width1" not in plan.archs[0]


def test_wrong_numbers_are_refused(space) -> None:
    with pytest.raises(InputError, match="at least 2"):
        Sandwich(1)
    with pytest.raises(InputError, match="at least 1"):
        Uniform(0)
    with pytest.raises(ValueError, match="at least one member"):
        StepPlan(())
    with pytest.raises(ValueError, match="in-place teacher"):
        StepPlan((Member(space.largest, "inplace"),))


def test_settings_make_the_same_policy_again() -> None:
    for policy in (Sandwich(3, distill=False), Uniform(2)):
        assert type(policy)(**json.loads(json.dumps(dict(policy.settings)))) == policy
        assert policy.state_dict() == {}
