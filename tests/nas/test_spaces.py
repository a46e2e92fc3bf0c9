"""Spaces are made for the data: its sizes, and its kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas.data import Data, load_data
from nas.spaces import make_space
from search_spaces import InputError, SearchSpace
from search_spaces.choice import Choice
from search_spaces.gpt import space as gpt

SMALL = {"depths": [1], "embed_dims": [8], "head_dim": 4}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Iterator[Data]:
    path: Path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text("one and two and three\n" * 40)
    return load_data(str(path), context=16)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=8)


def test_a_text_space_gets_the_vocabulary_and_the_context(text) -> None:
    made = make_space("gpt", SMALL, text)
    assert made.input_shape(made.largest) == (16,)
    assert made.classes == 256
    assert made.settings["context"] == 16


def test_an_image_space_gets_classes_channels_and_image_size(digits) -> None:
    made = make_space("mobilenet_v3", {}, digits)
    assert made.input_shape(made.largest) == (1, 8, 8)
    assert made.classes == 10


@pytest.mark.parametrize("name", ["mobilenet_v3", "vit"])
def test_an_image_space_does_not_read_text(text, name) -> None:
    with pytest.raises(InputError, match=f"space '{name}' does not read text .* use --space gpt"):
        make_space(name, {}, text)


def test_a_text_space_does_not_read_images(digits) -> None:
    with pytest.raises(InputError, match=r"space 'gpt' does not read images .*digits holds images"):
        make_space("gpt", SMALL, digits)


@pytest.mark.parametrize(
    ("name", "kind", "given", "hint"),
    [
        ("gpt", "text", "context", "use --context"),
        ("gpt", "text", "classes", ""),
        ("gpt", "text", "image_size", ""),
        ("vit", "digits", "image_size", "use --image-size"),
        ("vit", "digits", "context", ""),
    ],
)
def test_sizes_that_the_data_decides_are_not_settings_of_the_space(request, name, kind, given, hint) -> None:
    with pytest.raises(InputError, match=f"{given} comes from the data.*{hint}"):
        make_space(name, {given: 8}, request.getfixturevalue(kind))


def test_a_space_of_ones_own_must_fit_the_data(text, digits, monkeypatch, tmp_path) -> None:
    (tmp_path / "own_spaces.py").write_text(
        "from search_spaces.gpt import space\n"
        "ready = space(context=16, depths=[1], embed_dims=[8], head_dim=4)\n"
        "longer = space(context=20, depths=[1], embed_dims=[8], head_dim=4)\n"
        "def anything(**sizes):\n    return ready\n"
    )
    monkeypatch.chdir(tmp_path)
    assert make_space("own_spaces:ready", {}, text).name == "own_spaces:ready"
    with pytest.raises(InputError, match="takes 20 and gives 256 classes, but a has 16 and 256"):
        make_space("own_spaces:longer", {}, text)
    for name in ("ready", "anything"):
        with pytest.raises(InputError, match="does not read images"):
            make_space(f"own_spaces:{name}", {}, digits)


def test_the_type_of_the_input_names_the_kind() -> None:
    assert gpt(**SMALL).input_dtype is torch.int64
    image = SearchSpace("x", [Choice("a", (1, 2))], lambda arch: torch.nn.Flatten(), input_shape=(1, 4, 4))
    assert image.input_dtype is torch.float32
