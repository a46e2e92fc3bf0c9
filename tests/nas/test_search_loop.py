"""The loop of a search: what is evaluated, what is charged, what is recorded, and how it goes on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import SEARCHERS
from torch import nn

from nas.front import nondominated
from nas.objectives import Limit, Objective
from nas.resolve import resolve
from nas.search_loop import Infeasible, cheap_violation, check_feasible, search
from nas.searchers.searcher import Problem, everything
from predictors.target import Provenance
from search_spaces import Choice, SearchSpace


def space(digits=3, options=4) -> SearchSpace:
    """Numbers of one to `digits` digits."""
    choices = [Choice("length", tuple(range(1, digits + 1)))]
    for i in range(1, digits + 1):
        when = {"length": tuple(range(i, digits + 1))} if i > 1 else None
        choices.append(Choice(f"digit{i}", tuple(range(options)), when=when))
    return SearchSpace("numbers", choices, lambda arch: nn.Identity(), input_shape=(1, 1, 1))


SPACE = space()  # 84


def objective(name, function, direction="minimize", cheap=False):
    """`asked` of it holds every row that it was evaluated on."""
    asked = []

    def evaluate(population):
        asked.extend(map(tuple, population))
        return np.asarray(function(population.astype(float)), dtype=float)

    made = Objective(name, "", direction, cheap, Provenance("computed", "for a test"), evaluate)
    object.__setattr__(made, "asked", asked)
    return made


def total(population):
    return np.where(population[:, 1:] < 0, 0, population[:, 1:] + 1).sum(axis=1)


def score(population):
    return np.sin(population @ np.arange(1.0, population.shape[1] + 1)) + 0.3 * total(population)


def pair():
    return [objective("accuracy", score, "maximize"), objective("params", total, cheap=True)]


def go(objectives, limits=(), evaluations=30, searcher="nsga2", seed=0, population=6, **more):
    problem = Problem(SPACE, len(objectives), cheap_violation(limits), population, seed)
    made = resolve("searcher", searcher)(problem)
    return search(SPACE, made, objectives, limits, evaluations, **more)


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("evaluations", [1, 5, 6, 7, 30, 84, 500])
def test_each_network_is_evaluated_once_and_all_of_the_budget_is_used(searcher, evaluations) -> None:
    accuracy, params = pair()
    outcome = go([accuracy, params], evaluations=evaluations, searcher=searcher)
    assert len(accuracy.asked) == len(set(accuracy.asked)) == min(evaluations, SPACE.size)
    assert outcome.population.tolist() == list(map(list, accuracy.asked))
    assert outcome.values[:, 0].tolist() == score(outcome.population.astype(float)).tolist()
    assert outcome.values[:, 1].tolist() == total(outcome.population).tolist()
    assert outcome.exhausted == (evaluations > SPACE.size)
    assert outcome.feasible.all()


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_search_of_everything_finds_the_front_of_brute_force(searcher) -> None:
    outcome = go(pair(), evaluations=1000, searcher=searcher)
    every = everything(SPACE)
    signs = np.array([-1, 1])
    truth = np.column_stack([score(every.astype(float)), total(every)]) * signs
    found = outcome.values * signs
    want = {tuple(row) for row in every[nondominated(truth)]}
    assert {tuple(row) for row in outcome.population[nondominated(found)]} == want


@settings(max_examples=10)
@given(st.integers(1, 11), st.sampled_from(SEARCHERS), st.integers(0, 5))
def test_what_is_beyond_a_cheap_limit_is_never_evaluated(most, searcher, seed) -> None:
    accuracy, params = pair()
    limit = Limit(objective("params", total, cheap=True), most)
    outcome = go([accuracy, params], [limit], evaluations=200, searcher=searcher, seed=seed)
    allowed = {tuple(row) for row in everything(SPACE) if total(row[None])[0] <= most}
    assert set(accuracy.asked) == allowed
    assert len(accuracy.asked) == len(allowed)
    assert outcome.exhausted
    assert outcome.feasible.all()


def test_a_limit_on_what_is_no_objective_holds_too() -> None:
    accuracy = objective("accuracy", score, "maximize")
    length = Limit(objective("length", lambda p: p[:, 0] + 1, cheap=True), 2)
    outcome = go([accuracy], [length], evaluations=500)
    assert {row[0] for row in accuracy.asked} == {0, 1}
    assert len(outcome.values) == 20


def test_a_limit_on_what_is_measured_is_checked_after_the_evaluation_and_not_measured_twice() -> None:
    accuracy, latency = objective("accuracy", score, "maximize"), objective("latency", total)
    outcome = go([accuracy, latency], [Limit(latency, 4)], evaluations=40)
    assert len(latency.asked) == len(set(latency.asked)) == 40
    assert outcome.feasible.tolist() == (outcome.values[:, 1] <= 4).tolist()
    assert not outcome.feasible.all()


def test_a_measured_limit_that_is_no_objective_is_measured_once_for_each() -> None:
    accuracy, latency = objective("accuracy", score, "maximize"), objective("latency", total)
    outcome = go([accuracy], [Limit(latency, 4)], evaluations=40)
    assert latency.asked == accuracy.asked
    assert outcome.violations[:, 0].tolist() == (total(outcome.population) / 4 - 1).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_left_out_and_counted(bad) -> None:
    broken = objective("accuracy", lambda p: np.where(p[:, 1] == 2, bad, score(p)), "maximize")
    recorded = []
    outcome = go(
        [broken, objective("params", total)],
        evaluations=500,
        record=lambda population, values, violations, seconds: recorded.extend(values),
    )
    assert outcome.failed == 21
    assert len(outcome.values) == len(recorded) == 63
    assert np.isfinite(outcome.values).all()
    assert np.isfinite(recorded).all()


def test_a_generation_is_recorded_before_the_next_is_asked_for() -> None:
    """So that a kill loses one generation at most."""
    accuracy, params = pair()
    sizes = []

    def record(population, values, violations, seconds):
        sizes.append(len(population))
        assert sum(sizes) == len(accuracy.asked)
        assert values.shape == (len(population), 2)
        assert violations.shape == (len(population), 0)
        assert seconds > 0

    ticks = iter(range(1000))
    go([accuracy, params], record=record, evaluations=20, clock=lambda: float(next(ticks)))
    assert sum(sizes) == 20
    assert max(sizes) <= 6


def test_a_negative_or_zero_budget_does_nothing() -> None:
    outcome = go(pair(), evaluations=0)
    assert outcome.values.shape == (0, 2)
    assert outcome.population.shape == (0, len(SPACE.choices))


def known_of(outcome, n):
    rows = zip(outcome.population[:n], outcome.values[:n], outcome.violations[:n])
    return {row.tobytes(): (values, violations) for row, values, violations in rows}


@settings(max_examples=15)
@given(
    st.integers(0, 40),
    st.integers(0, 15),
    st.sampled_from(SEARCHERS),
    st.sampled_from([None, 7, 9]),
    st.integers(0, 3),
)
def test_a_search_that_stopped_anywhere_goes_on_as_if_it_had_not(cut, more, searcher, most, seed) -> None:
    """Whatever was recorded when it stopped, also in the middle of a generation, and with a larger budget."""
    limits = [] if most is None else [Limit(objective("params", total, cheap=True), most)]
    settings = {"searcher": searcher, "seed": seed, "limits": limits}
    whole = go(pair(), evaluations=40 + more, **settings)
    stopped = go(pair(), evaluations=40, **settings)
    accuracy, params = pair()
    recorded = []
    again = go(
        [accuracy, params],
        evaluations=40 + more,
        known=known_of(stopped, cut),
        record=lambda population, values, violations, seconds: recorded.extend(map(tuple, population)),
        **settings,
    )
    assert again.population.tolist() == whole.population.tolist()
    assert again.values.tolist() == whole.values.tolist()
    assert again.violations.tolist() == whole.violations.tolist()
    assert recorded == accuracy.asked == list(map(tuple, whole.population[cut:]))


def test_no_network_within_the_limits_is_told_before_anything_is_evaluated() -> None:
    cheap = Limit(objective("params", total, cheap=True), 0.5)
    with pytest.raises(Infeasible) as told:
        check_feasible(SPACE, [cheap, Limit(objective("latency", total), 0.1)], seed=0)
    assert str(told.value) == (
        "no arch of 'numbers' with params <= 0.5 in 10,000 draws; the least seen: params 1"
    )
    assert cheap.objective.asked
    check_feasible(SPACE, [Limit(cheap.objective, 1)], seed=0)
    check_feasible(SPACE, [], seed=0)
    dear = objective("latency", total)
    check_feasible(SPACE, [Limit(dear, 0.1)], seed=0)
    assert not dear.asked


def test_two_limits_that_exclude_each_other() -> None:
    few = Limit(objective("params", total, cheap=True), 2)
    deep = Limit(objective("macs", lambda p: 3 - p[:, 0], cheap=True), 1)  # all three digits
    check_feasible(SPACE, [few], seed=0)
    check_feasible(SPACE, [deep], seed=0)
    with pytest.raises(Infeasible, match=r"params <= 2 and macs <= 1 .* params 1, macs 1$"):
        check_feasible(SPACE, [few, deep], seed=0)


def test_limits_are_written_as_people_write_them() -> None:
    assert str(Limit(objective("params", total), 2_000_000)) == "params <= 2,000,000"
    assert str(Limit(objective("macs", total), 0.25)) == "macs <= 0.25"
    assert Limit(objective("params", total), 4).violation(np.array([2.0, 4.0, 6.0])).tolist() == [
        -0.5,
        0,
        0.5,
    ]
