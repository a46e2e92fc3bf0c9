"""The searchers that know beforehand what is worth evaluating: Mix'n'Match and the lookup in nested lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nas.cli import main
from nas.resolve import resolve
from nas.searchers.searcher import Problem
from search_spaces import InputError, SpaceError, mobilenet_v3, vit
from search_spaces.minimum_slope import ladder
from search_spaces.nesting import grid, largest_within

SPACE = vit.space(
    image_size=8,
    channels=1,
    classes=10,
    patch=4,
    depths=(1, 2, 3),
    embed_dims=(8, 16),
    heads=(2,),
    head_dim=4,
    mlp_ratios=(0.5, 1.0, 2.0, 4.0),
)


def params(population):
    return SPACE.costs(population).params.astype(float)


def within(budget):
    return lambda population: np.maximum(params(population) / budget - 1, 0)


def make(name, violation=None, population=5, listed=()):
    none = lambda population: np.zeros(len(population))  # noqa: E731
    return resolve("searcher", name)(
        Problem(SPACE, 2, violation or none, population, 0, violation is not None, tuple(listed))
    )


def run(searcher, violation=None):
    asked = []
    for _ in range(100):
        population = searcher.ask()
        if not len(population):
            return SPACE.archs(np.concatenate(asked))
        asked.append(population)
        beyond = np.zeros(len(population)) if violation is None else violation(population)
        searcher.tell(population, np.zeros((len(population), 2)), beyond)
    raise AssertionError("does not end")


def test_mix_n_match_asks_for_the_whole_ladder_from_the_top_and_then_for_nothing() -> None:
    searcher = make("mix_n_match")
    assert run(searcher) == list(reversed(ladder(SPACE)))
    assert not len(searcher.ask())


def test_mix_n_match_leaves_out_what_is_beyond_the_limits() -> None:
    rungs = ladder(SPACE)
    costs = params(SPACE.index(rungs))
    budget = float(np.median(costs))
    assert run(make("mix_n_match", within(budget)), within(budget)) == [
        a for a, c in reversed(list(zip(rungs, costs, strict=True))) if c <= budget
    ]


def test_a_lookup_asks_for_the_largest_member_within_the_limits_and_no_other() -> None:
    members = grid(SPACE)
    costs = np.sort(params(SPACE.index(members)))
    for budget in (costs[0], costs[5], costs[-1]):
        (found,) = run(make("nested_lookup", within(budget)), within(budget))
        macs = SPACE.costs(SPACE.index(members)).macs[params(SPACE.index(members)) <= budget]
        assert SPACE.costs(SPACE.index([found])).macs[0] == macs.max()
        assert params(SPACE.index([found]))[0] <= budget
    assert largest_within(SPACE, members, costs[-1]) == SPACE.largest


def test_a_lookup_goes_on_while_a_limit_that_must_be_measured_is_broken() -> None:
    free = lambda population: np.zeros(len(population))  # noqa: E731
    searcher = make("nested_lookup", free)
    asked = run(
        searcher,
        lambda population: np.array([0.0 if a["depth"] < 3 else 1.0 for a in SPACE.archs(population)]),
    )
    assert [a["depth"] for a in asked] == [3] * (len(asked) - 1) + [2]


def test_without_limits_a_lookup_shows_every_member_of_the_trained_list() -> None:
    listed = grid(SPACE, ("depth", "embed_dim"))
    asked = run(make("nested_lookup", listed=listed))
    assert set(asked) == set(listed)
    macs = SPACE.costs(SPACE.index(asked)).macs
    assert (np.diff(macs) <= 0).all()
    assert len(run(make("nested_lookup"))) == len(grid(SPACE)) == 3 * 2 * 4


def test_told_again_they_repeat_and_a_space_or_limit_that_does_not_fit_is_named() -> None:
    for name in ("mix_n_match", "nested_lookup"):
        first, again = make(name), make(name)
        for _ in range(3):
            population = first.ask()
            assert again.ask().tolist() == population.tolist()
            for searcher in (first, again):
                searcher.tell(population, np.zeros((len(population), 2)), np.zeros(len(population)))
        with pytest.raises(InputError, match="is within the limits"):
            make(name, within(1))
    space = mobilenet_v3.space(image_size=16, channels=1, classes=10)
    with pytest.raises(SpaceError, match="mlp_ratio"):
        resolve("searcher", "mix_n_match")(Problem(space, 2, lambda p: np.zeros(len(p)), 4, 0))


def test_a_matformer_of_text_is_trained_mixed_and_audited(tmp_path, monkeypatch, capfd) -> None:
    """Without the names of its space or objective anywhere: perplexity falls, so lower is better."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_DEVICE", "cpu")
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 80)
    sizes = (
        "depths=[2]",
        "embed_dims=[8]",
        "heads=[2]",
        "head_dim=4",
        "kv_group=1",
        "ffn_ratios=[0.5,1.0,2.0]",
    )
    given = [word for setting in sizes for word in ("--space-set", setting)]
    text = "--data text:text.txt --context 16 --batch-size 8 --epochs 2 --recipe matformer --name m -q"
    assert main(["train", "--space", "gpt", *given, *text.split()]) == 0
    capfd.readouterr()
    search = "search --supernet runs/m --searcher mix_n_match --objectives perplexity,params --name s"
    assert main([*search.split(), "--no-export", "--json", "-q"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["evaluated"] == 2 * 2 + 1
    assert main(["audit", "runs/m", "--networks", "3", "--epochs", "1", "--json", "-q"]) == 0
    audit = json.loads(capfd.readouterr().out)
    assert audit["what"] == "perplexity"
    rows = audit["networks"]
    best = min(rows, key=lambda row: row["alone"])
    assert best["alone_rank"] == 1
    assert all(1 < row["alone"] < 256 for row in rows)
    assert audit["fidelity"]["gap"] == np.mean([row["supernet"] - row["alone"] for row in rows])


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (("matformer",), "no choice of 'mobilenet_v3' that is a number matches '*.mlp_ratio'"),
        (("sortednet", "exits=[1,2]"), "the networks of 'mobilenet_v3' have no exits"),
        (("sortednet", "dimensions=['*.width']"), "'*.width'"),
        (("matformer", "patterns=['*.kernel']", "probabilities=[1]"), "1 probabilities are given for the"),
    ],
)
def test_a_recipe_that_does_not_fit_its_space_is_refused_before_anything_is_written(
    recipe, said, tmp_path, monkeypatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_DEVICE", "cpu")
    given = [word for setting in recipe[1:] for word in ("--recipe-set", setting)]
    assert main(["train", "--recipe", recipe[0], *given, "-q"]) == 2
    assert said in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sortednet_is_trained_and_its_members_looked_up(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_DEVICE", "cpu")
    small = (
        "depths=[1,2]",
        "embed_dims=[8,16]",
        "heads=[2]",
        "head_dim=4",
        "mlp_ratios=[0.5,1.0]",
        "patch=4",
    )
    sizes = [word for setting in small for word in ("--space-set", setting)]
    recipe = ("--recipe", "sortednet", "--recipe-set", "dimensions=[depth,embed_dim]", "--recipe-set", "n=2")
    assert (
        main(
            [
                "train",
                "--space",
                "vit",
                *sizes,
                *recipe,
                *["--image-size", "8", "--epochs", "1", "--name", "s", "-q"],
            ]
        )
        == 0
    )
    search = (
        "search --supernet runs/s --searcher nested_lookup --objectives accuracy,params --no-export --json -q"
    )
    capfd.readouterr()
    assert main([*search.split(), "--name", "all"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["evaluated"] == 4
    assert main([*search.split(), "--name", "one", "--max-params", "3k"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["evaluated"] == 1
    assert main(["audit", "runs/s", "--dry-run", "--json", "-q", "--only-trained"]) == 0
    assert len(json.loads(capfd.readouterr().out)["networks"]) == 4
    assert main(["audit", "runs/s", "--dry-run", "--json", "-q", "--networks", "9"]) == 0
    out, err = capfd.readouterr()
    assert len(json.loads(out)["networks"]) == 9
    assert "of the 9 networks are none that the training drew" in err
    assert Path("runs/one/run.json").is_file()
