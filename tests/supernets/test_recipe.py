from __future__ import annotations

import json

import pytest

from search_spaces.errors import InputError
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe
from supernets.recipes import sandwich, uniform


def freeze(supernet) -> None:
    """An entry of a phase, by name."""


def test_a_recipe_describes_itself_as_json() -> None:
    phase = Phase(name="p", epochs=2, policy=Uniform(2), open={"*.depth": (3, 4)}, at_entry=(freeze,))
    text = json.dumps(Recipe("r", (phase, phase)).describe(), allow_nan=False)
    assert json.loads(text)["scheme"] == "slice"
    described = json.loads(text)["phases"][1]
    assert described["policy"] == {"name": "uniform", "n": 2, "loss": "labels", "one_resolution": False}
    assert described["open"] == {"*.depth": [3, 4]}
    assert described["at_entry"] == [f"{__name__}:freeze"]
    assert described["lr"] == phase.lr


@pytest.mark.parametrize("module", [sandwich, uniform])
@pytest.mark.parametrize("epochs", [1, 7, 90])
def test_the_recipes_that_come_with_the_package_hold_together(module, epochs: int) -> None:
    recipe = module.recipe(epochs=epochs, lr=0.3)
    assert recipe.epochs == epochs
    assert recipe.phases[0].lr == 0.3
    assert recipe.phases[0].warmup_epochs < epochs
    json.dumps(recipe.describe(), allow_nan=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": -1},
        {"lr": float("nan")},
        {"momentum": 2},
        {"label_smoothing": -0.1},
        {"accumulate": 0},
        {"warmup_epochs": 2},
        {"untouched": "mask"},
        {"teacher": "larger"},
        {"divergence": "beta"},
        {"kd_ratio": -1.0},
        {"clip_norm": float("inf")},
    ],
)
def test_a_wrong_setting_is_named_in_one_line(wrong) -> None:
    with pytest.raises(InputError) as caught:
        Phase(**{"name": "p", "epochs": 2, "policy": Uniform(), **wrong})
    assert next(iter(wrong)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_without_phases_is_refused() -> None:
    with pytest.raises(InputError, match="no phase"):
        Recipe("empty", ())


def test_the_sandwich_distils_by_either_divergence() -> None:
    assert sandwich.recipe().phases[0].divergence == "kl"
    assert sandwich.recipe(divergence="alpha").phases[0].divergence == "alpha"
