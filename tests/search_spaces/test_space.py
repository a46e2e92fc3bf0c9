"""Populations: canonical, complete, reversible, for any arch of any space."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
from conditional_spaces import conditional_choices, conditional_spaces, every_arch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Arch, Choice, SearchSpace, SpaceError, mobilenet_v3

seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=60)


def plain_space(*choices: Choice) -> SearchSpace:
    return SearchSpace("tiny", choices, lambda arch: None, input_shape=(3, 8, 8))  # type: ignore[arg-type]


def assert_canonical(space: SearchSpace, population: np.ndarray) -> None:
    """Each row says -1 exactly where a choice is not in force, by the definition in words."""
    assert population.dtype == np.int16
    assert population.shape[1] == len(space.choices)
    for row in population:
        kept = {}
        for choice, i in zip(space.choices, row, strict=True):
            in_force = all(p in kept and kept[p] in allowed for p, allowed in choice.when.items())
            assert (i >= 0) == in_force, (choice, row)
            assert i < len(choice.options)
            if in_force:
                kept[choice.name] = choice.options[i]


def check_populations(space: SearchSpace, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = space.sample(n, rng), space.sample(n, rng)
    random_rows = rng.integers(-1, [len(c.options) for c in space.choices], size=a.shape)
    children = space.crossover(a, b, rng, swap=rng.random())
    for population in (
        a,
        children,
        space.mutate(a, rng),
        space.mutate(a, rng, rate=1.0),
        space.canonical(random_rows),
        space.canonical(random_rows, rng),
    ):
        assert_canonical(space, population)
        archs = space.archs(population)
        assert np.array_equal(space.index(archs), population)
        assert np.array_equal(space.index([dict(arch) for arch in archs]), population)
        assert [Arch.from_json(arch.to_json()) for arch in archs] == archs
        assert [space.arch(arch) for arch in archs] == archs
        assert len(set(archs)) == len(np.unique(population, axis=0))
        check_one_hot(space, population)
    assert np.array_equal(space.canonical(a), a)
    assert np.array_equal(space.canonical(a, rng), a)
    assert np.array_equal(space.crossover(a, a, rng), a)
    assert np.array_equal(space.mutate(a, rng, rate=0.0), a)
    inherited = (children == a) | (children == b) | ((a < 0) & (b < 0)) | (children < 0)
    assert inherited.all()


def check_one_hot(space: SearchSpace, population: np.ndarray) -> None:
    hot = space.one_hot(population)
    assert hot.dtype == np.float32
    assert hot.shape == (len(population), len(space.columns()))
    assert set(np.unique(hot)) <= {0.0, 1.0}
    at = 0
    for choice, column in zip(space.choices, population.T, strict=True):
        part = hot[:, at : at + len(choice.options)]
        assert np.array_equal(part.sum(1), (column >= 0).astype(np.float32))
        assert np.array_equal(part.argmax(1)[column >= 0], column[column >= 0])
        at += len(choice.options)
    assert at == hot.shape[1]


@some
@given(conditional_spaces, seeds)
def test_populations_of_random_conditional_spaces(space, seed):
    check_populations(space, seed, n=8)


@settings(max_examples=5)
@given(seed=seeds)
def test_populations_of_every_space(any_space, seed):
    check_populations(any_space, seed, n=20)


@some
@given(conditional_spaces)
def test_size_is_the_number_of_archs(space):
    archs = list(every_arch(space))
    assert space.size == len(archs)
    assert len(np.unique(space.index(archs), axis=0)) == len(archs)


def test_size_of_once_for_all():
    space = mobilenet_v3.space(resolutions=range(128, 225, 4))
    assert space.size == 7371**5 * 25
    assert mobilenet_v3.space(resolutions=(224,)).size == ((9**2) + (9**3) + (9**4)) ** 5


def test_size_of_a_space_beyond_floats_has_a_repr():
    space = plain_space(*(Choice(f"c{i}", range(10)) for i in range(400)))
    assert space.size == 10**400
    assert "1e400 archs" in repr(space)


@some
@given(conditional_spaces, seeds)
def test_crossover_takes_a_gene_from_the_parent_that_has_it(space, seed):
    rng = np.random.default_rng(seed)
    a, b = space.sample(16, rng), space.sample(16, rng)
    child = space.crossover(a, b, rng)
    in_one = (child >= 0) & ((a >= 0) ^ (b >= 0))
    assert np.array_equal(child[in_one], np.maximum(a, b)[in_one])
    in_both = (child >= 0) & (a >= 0) & (b >= 0)
    assert ((child == a) | (child == b))[in_both].all()
    assert np.array_equal(space.crossover(a, b, rng, swap=0.0), a)
    assert np.array_equal(space.crossover(a, b, rng, swap=1.0), b)


@some
@given(conditional_spaces, seeds)
def test_mutation_hits_take_another_option(space, seed):
    rng = np.random.default_rng(seed)
    before = space.sample(16, rng)
    after = space.mutate(before, rng, rate=1.0)
    several = np.array([len(c.options) > 1 for c in space.choices])
    both = (before >= 0) & (after >= 0) & several
    assert (before != after)[both].all()
    assert (before == after)[(before >= 0) & (after >= 0) & ~several].all()


@given(st.integers(2, 6), seeds)
def test_mutation_reaches_every_other_option_alike(count, seed):
    space = plain_space(Choice("c", range(count)))
    start = np.full((400 * count, 1), seed % count, dtype=np.int16)
    after = space.mutate(start, np.random.default_rng(seed), rate=1.0)
    counts = np.bincount(after[:, 0], minlength=count)
    assert counts[seed % count] == 0
    expected = len(start) / (count - 1)
    others = np.delete(counts, seed % count)
    assert np.abs(others - expected).max() < 6 * expected**0.5


def test_default_mutation_changes_one_choice_on_average(rng):
    space = plain_space(*(Choice(f"c{j}", range(5)) for j in range(10)))
    before = space.sample(4000, rng)
    changed = (space.mutate(before, rng) != before).sum(1)
    assert changed.mean() == pytest.approx(1.0, abs=0.08)


def test_sample_is_uniform_over_options_in_force(rng):
    space = plain_space(Choice("depth", (1, 2)), Choice("kernel", (3, 5, 7), when={"depth": (2,)}))
    population = space.sample(6000, rng)
    kernels = population[population[:, 0] == 1, 1]
    assert len(kernels) == pytest.approx(3000, abs=250)
    assert np.abs(np.bincount(kernels) - len(kernels) / 3).max() < 200
    assert len(space.sample(0, rng)) == 0


def test_largest_and_smallest(any_space):
    largest, smallest = any_space.index([any_space.largest, any_space.smallest])
    for choice, last, first in zip(any_space.choices, largest, smallest, strict=True):
        assert last in (-1, len(choice.options) - 1)
        assert first in (-1, 0)
    costs = any_space.costs(any_space.index([any_space.largest, any_space.smallest]))
    for column in costs:
        assert column[0] > column[1]


def test_missing_choices_take_the_last_option_or_a_drawn_one(rng):
    space = plain_space(Choice("depth", (1, 2)), Choice("kernel", (3, 5, 7), when={"depth": (2,)}))
    rows = np.array([[1, -1], [0, 2], [-1, -1]])
    assert space.canonical(rows).tolist() == [[1, 2], [0, -1], [1, 2]]
    drawn = {space.canonical(rows, rng)[0, 1] for _ in range(50)}
    assert drawn == {0, 1, 2}
    assert rows.tolist() == [[1, -1], [0, 2], [-1, -1]]


def test_arguments_are_left_alone(any_space, rng):
    a, b = any_space.sample(5, rng), any_space.sample(5, rng)
    before = a.copy(), b.copy()
    any_space.mutate(a, rng, rate=1.0)
    any_space.crossover(a, b, rng)
    any_space.canonical(a)
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])


def test_refusals_of_arch():
    space = plain_space(Choice("depth", (1, 2)), Choice("kernel", (3, 5, 7), when={"depth": (2,)}))
    with pytest.raises(SpaceError, match="'kernal' is not a choice of 'tiny'; did you mean 'kernel'"):
        space.arch({"depth": 2, "kernal": 3})
    with pytest.raises(SpaceError, match=r"kernel = 4 is not an option \(options: 3, 5, 7\)"):
        space.arch({"depth": 2, "kernel": 4})
    with pytest.raises(SpaceError, match="arch of 'tiny' lacks 'kernel', which is in force"):
        space.arch({"depth": 2})
    with pytest.raises(SpaceError, match="lacks 'depth'"):
        space.index([Arch({})])
    assert space.arch({"depth": 1, "kernel": 7}) == Arch({"depth": 1})
    assert space.arch({"depth": 1.0}).to_json() == '{"depth":1}'


def test_conditions_must_refer_to_earlier_choices():
    with pytest.raises(SpaceError, match="'a' depends on 'b', which is not a choice before it"):
        plain_space(Choice("a", (1, 2), when={"b": (1,)}), Choice("b", (1, 2)))
    with pytest.raises(SpaceError, match="'a' depends on 'a'"):
        plain_space(Choice("a", (1, 2), when={"a": (1,)}))
    with pytest.raises(SpaceError, match="two choices named a"):
        plain_space(Choice("a", (1, 2)), Choice("a", (1, 2)))


def test_archs_of_a_restricted_space_are_archs_of_the_full_one(any_space, rng):
    name = any_space.choices[0].name
    kept = any_space.choices[0].options[-1:]
    part = any_space.restrict({name: kept})
    assert part.size < any_space.size
    for arch in part.archs(part.sample(20, rng)):
        assert any_space.arch(arch) == arch
        assert arch[name] == kept[0]
    assert part.digest != any_space.digest


@some
@given(conditional_choices(), st.data())
def test_restriction_of_random_spaces_keeps_exactly_the_archs_with_those_options(choices, data):
    space = plain_space(*choices)
    keep = {
        c.name: data.draw(st.lists(st.sampled_from(c.options), min_size=1, unique=True))
        for c in data.draw(st.lists(st.sampled_from(choices), unique_by=lambda c: c.name))
    }
    part = space.restrict(keep)
    wanted = {a for a in every_arch(space) if all(a[n] in allowed for n, allowed in keep.items() if n in a)}
    assert set(every_arch(part)) == wanted
    assert part.size == len(wanted)


def test_restrict_refuses_a_pattern_without_a_match():
    space = mobilenet_v3.space(image_size=16)
    with pytest.raises(SpaceError, match=r"no choice of 'mobilenet_v3' matches 'stage1.dept'; did you mean"):
        space.restrict({"stage1.dept": (1,)})
    with pytest.raises(SpaceError, match=r"stage1.depth would keep no option: \(9,\)"):
        space.restrict({"*.depth": (9,)})
    assert space.restrict({"*.depth": (4,)}).smallest["stage2.depth"] == 4


def test_a_number_keeps_that_many_of_the_largest_options():
    space = mobilenet_v3.space(image_size=32)
    part = space.restrict({"*": 1, "resolution": 99, "*.depth": 2, "*.no_such_choice": 1})
    options = {c.name: c.options for c in part.choices}
    assert options["resolution"] == (16, 20, 24, 28, 32)
    assert {options[n] for n in options if n.endswith(".depth")} == {(3, 4)}
    assert {options[n] for n in options if n.endswith(".kernel")} == {(7,)}
    assert part.largest == space.largest
    assert part.size == 5 * 2**3
    with pytest.raises(SpaceError, match="resolution would keep no option: the 0 largest"):
        space.restrict({"*": 0})


def test_the_last_pattern_that_matches_decides():
    space = mobilenet_v3.space(image_size=32)
    for keep in (
        {"*.depth": (1, 2), "stage1.*": 2},
        {"stage1.*": 2, "stage1.depth": 2, "stage[23].depth": 9},
    ):
        options = {c.name: c.options for c in space.restrict(keep).choices}
        assert options["stage1.depth"] == (3, 4)
    assert options["stage2.depth"] == (1, 2, 3, 4)


def test_resolution_sets_the_input():
    space = mobilenet_v3.space(image_size=32, channels=2, classes=7)
    assert space.channels == 2
    assert space.image_size == 32
    assert space.classes == 7
    small = space.smallest.integer("resolution")
    assert space.input_shape(space.smallest) == (2, small, small)
    assert space.example(space.largest, batch=3).shape == (3, 2, 32, 32)


def test_a_space_without_choices_has_one_arch(rng):
    space = plain_space()
    assert space.size == 1
    assert space.archs(space.sample(2, rng)) == [Arch({}), Arch({})]
    assert space.one_hot(space.sample(2, rng)).shape == (2, 0)


def test_same_seed_gives_the_same_population_in_another_process():
    program = """
import hashlib, numpy as np
from nas.resolve import names, resolve
for name in names("space"):
    space = resolve("space", name)(classes=10)
    rng = np.random.default_rng(5)
    a, b = space.sample(30, rng), space.sample(30, rng)
    c = space.mutate(space.crossover(a, b, rng), rng)
    print(name, hashlib.sha256(c.tobytes()).hexdigest(), space.digest, space.archs(c)[0].digest)
"""
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    here = io.StringIO()
    with redirect_stdout(here):
        exec(program, {})
    assert here.getvalue() == other
    assert "mobilenet_v3" in other


def test_digest_names_choices_settings_and_input():
    def make(**changes):
        settings = {"a": 1, "input_shape": (3, 8, 8), "options": (1, 2), **changes}
        return SearchSpace(
            settings.get("name", "s"),
            [Choice("c", settings["options"])],
            lambda arch: None,
            input_shape=settings["input_shape"],
            settings={"a": settings["a"]},
        ).digest

    digests = {make(), make(a=2), make(input_shape=(1, 8, 8)), make(options=(1, 3)), make(name="t")}
    assert len(digests) == 5
    assert make() == make()


def test_settings_make_the_space_again(any_space):
    from nas.resolve import resolve

    again = resolve("space", any_space.name)(**any_space.settings)
    assert again.digest == any_space.digest
    assert again.settings == any_space.settings
