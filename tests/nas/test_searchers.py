"""What every searcher promises, over all that are installed; and NSGA-II against brute force."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from searching import SEARCHERS
from torch import nn

from nas.front import nondominated
from nas.resolve import resolve
from nas.searchers.searcher import Problem, Seen, everything, extremes
from search_spaces import Choice, SearchSpace


def ladder(depths=3, widths=4) -> SearchSpace:
    """`depths` layers at most, each of one of `widths` widths: widths + widths^2 + ... networks."""
    choices = [Choice("depth", tuple(range(1, depths + 1)))]
    for i in range(1, depths + 1):
        when = {"depth": tuple(range(i, depths + 1))} if i > 1 else None
        choices.append(Choice(f"layer{i}.width", tuple(range(1, widths + 1)), when=when))

    def build(arch):
        sizes = [1, *(arch[f"layer{i}.width"] for i in range(1, arch["depth"] + 1))]
        return nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in pairwise(sizes)))

    return SearchSpace("ladder", choices, build, input_shape=(1, 4, 4))


SPACE = ladder()  # 4 + 16 + 64 networks


def no_limit(population):
    return np.zeros(len(population))


def narrow(population):
    """Beyond the limit by how much the widths sum to more than 3: 7 networks are within."""
    widths = np.where(population[:, 1:] < 0, 0, population[:, 1:] + 1).sum(axis=1)
    return np.maximum(widths - 3, 0) / 3.0


def two_objectives(population):
    """A true trade-off with a curved front: cost rises with the widths, error falls with depth and widths."""
    widths = np.where(population[:, 1:] < 0, 0, population[:, 1:] + 1.0)
    cost = (widths**1.5).sum(axis=1)
    error = 1.0 / (1.0 + widths.sum(axis=1)) + 0.07 * (population.astype(float) ** 2).sum(axis=1) % 0.1
    return np.stack([error, cost], axis=1)


def make(name, violation=no_limit, space=SPACE, population=6, seed=0, objectives=2):
    return resolve("searcher", name)(Problem(space, objectives, violation, population, seed))


def run(searcher, generations, violation=no_limit, values=two_objectives):
    """The generations that a searcher asks for, told `values` of each."""
    asked = []
    for _ in range(generations):
        population = searcher.ask()
        asked.append(population)
        if not len(population):
            break
        searcher.tell(population, values(population), violation(population))
    return asked


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize("violation", [no_limit, narrow])
def test_proposals_are_archs_and_none_comes_twice(name, violation) -> None:
    asked = np.concatenate(run(make(name, violation), 30, violation))
    assert asked.dtype == np.int16
    assert (SPACE.canonical(asked) == asked).all()
    assert len(np.unique(asked, axis=0)) == len(asked)
    assert SPACE.index(SPACE.archs(asked)).tolist() == asked.tolist()


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_small_space_is_searched_to_its_end_and_then_nothing_is_asked(name) -> None:
    searcher = make(name)
    asked = run(searcher, 60)
    assert len(np.concatenate(asked)) == SPACE.size
    assert all(len(population) == 6 for population in asked[:10])
    assert not len(asked[-1])
    assert not len(searcher.ask())


@pytest.mark.parametrize("name", SEARCHERS)
def test_networks_within_the_limits_come_first_as_long_as_there_are_any(name) -> None:
    first = run(make(name, narrow, population=4), 1, narrow)[0]
    assert (narrow(first) == 0).all()
    everywhere = np.concatenate(run(make(name, narrow, population=4), 60, narrow))
    assert (narrow(everywhere) == 0).sum() == (narrow(everything(SPACE)) == 0).sum() == 7


@pytest.mark.parametrize("name", SEARCHERS)
def test_the_largest_and_the_smallest_are_asked_for_first(name) -> None:
    ends = SPACE.index([SPACE.largest, SPACE.smallest]).tolist()
    assert make(name).ask()[:2].tolist() == ends
    assert make(name, narrow).ask()[:1].tolist() == ends[1:]


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_any_number_of_objectives(name, objectives) -> None:
    def values(population):
        return np.random.default_rng(len(population)).random((len(population), objectives))

    asked = run(make(name, objectives=objectives), 8, values=values)
    assert len(np.concatenate(asked)) == 48


@pytest.mark.parametrize("name", SEARCHERS)
def test_the_smallest_population_of_a_space_of_one_and_of_two(name) -> None:
    for depths, widths in ((1, 1), (1, 2)):
        asked = run(make(name, space=ladder(depths, widths), population=2), 5)
        assert len(np.concatenate(asked)) == depths * widths


def trace(name, seed):
    asked = run(make(name, space=ladder(4, 5), seed=seed), 6)
    return np.concatenate(asked).tolist()


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_seed_decides_all_and_the_global_generators_nothing(name) -> None:
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    first = trace(name, 3)
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    assert trace(name, 3) == first
    assert trace(name, 4) != first


def test_a_seed_decides_the_same_in_another_process() -> None:
    code = "import json, test_searchers as t; print(json.dumps([t.trace(n, 3) for n in t.SEARCHERS]))"
    path = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
    )
    assert json.loads(there.stdout) == [trace(name, 3) for name in SEARCHERS]


@pytest.mark.parametrize("name", SEARCHERS)
def test_telling_the_same_again_repeats_the_search(name) -> None:
    """What a resumed search relies on: its state is what it was told, nothing else."""
    space = ladder(4, 5)
    once = run(make(name, space=space), 5)
    again = make(name, space=space)
    for population in once:
        assert again.ask().tolist() == population.tolist()
        again.tell(population, two_objectives(population), no_limit(population))


def test_nsga2_with_the_whole_space_as_budget_finds_its_front() -> None:
    asked = np.concatenate(run(make("nsga2", population=8), 60))
    every = two_objectives(everything(SPACE))
    found = two_objectives(asked)
    assert {tuple(v) for v in found[nondominated(found)]} == {tuple(v) for v in every[nondominated(every)]}


def test_nsga2_comes_nearer_to_the_front_than_random_search() -> None:
    """Minimise the number of layers' widths that are not 2 and 3: a needle that selection finds."""
    space = ladder(6, 5)  # 19,530 networks

    def values(population):
        off = (population[:, 1:] != 1).sum(axis=1).astype(float)
        return np.stack([off, np.abs(population[:, 1:] - 2.0).sum(axis=1)], axis=1)

    def best(name, seed):
        asked = np.concatenate(run(make(name, space=space, population=20, seed=seed), 20, values=values))
        return values(asked)[:, 0].min()

    seeds = range(5)
    assert sum(best("nsga2", s) for s in seeds) < sum(best("random", s) for s in seeds)


def test_nsga2_climbs_into_the_limits_from_outside() -> None:
    """No draw is within the limit; selection by violation gets there."""
    space = ladder(6, 5)

    def violation(population):
        return (population[:, 1:] != 3).sum(axis=1).astype(float)  # depth 6, all widths 4: one in 93,750

    assert violation(extremes(Problem(space, 2, violation, 20, 0))).size == 0
    asked = np.concatenate(run(make("nsga2", violation, space, population=20), 60, violation))
    assert violation(asked).min() == 0


def test_everything_is_each_arch_once_and_nothing_for_a_large_space() -> None:
    every = everything(SPACE)
    assert len(every) == SPACE.size == len(np.unique(every, axis=0))
    assert (SPACE.canonical(every) == every).all()
    assert everything(ladder(12, 5)) is None


def test_fresh_ones_are_new_also_beside_those_that_are_asked_at_the_same_time() -> None:
    seen = Seen(SPACE, no_limit, np.random.default_rng(0))
    seen.add(everything(SPACE)[:70])
    pending = everything(SPACE)[70:75]
    fresh = seen.fresh(100, but=pending)
    assert sorted(map(tuple, fresh)) == sorted(map(tuple, everything(SPACE)[75:]))
    assert not len(seen.fresh(0))
