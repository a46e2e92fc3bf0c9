"""A training's run folder: its settings, data and supernet, as they were; and what the supernet scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from nas.data import Data, load_data
from nas.resolve import call, resolve
from nas.run_record import read_record, saved_settings
from nas.spaces import make_space
from nas.train_settings import TrainSettings
from search_spaces import Arch, InputError, SearchSpace
from supernets import Supernet
from supernets.checkpoint import load_tensors, sidecar
from supernets.evaluate import scores
from supernets.recipe import Recipe
from supernets.resume import WEIGHTS
from supernets.schemes import Scheme

SPLIT_SEED = 0  # one split for all seeds of training and search, so that their numbers compare


def settings_of(folder: Path) -> TrainSettings:
    """The settings of the training in `folder`.

    Raises:
        ConfigError: a run of another command, or a damaged record.
        FileNotFoundError: there is no such run.
    """
    return TrainSettings(**{k: given.value for k, given in saved_settings(folder, "train").items()})


def open_data(settings: TrainSettings) -> Data:
    """The data that the settings name, split as always."""
    return load_data(
        settings.data,
        image_size=settings.image_size,
        context=settings.context,
        data_dir=settings.data_dir,
        seed=SPLIT_SEED,
        download=settings.download,
    )


def check_data(folder: Path, data: Data) -> None:
    """Returns when `data` is what the run in `folder` was started with.

    Raises:
        InputError: files were added, removed or changed, so that another split would mix test images in.
    """
    if read_record(folder)["data"]["fingerprint"] != data.fingerprint:
        raise InputError(f"{data.source} is not the data that {folder} began with; start a new run")


def make_supernet(space: SearchSpace, settings: TrainSettings) -> Supernet:
    """A fresh supernet of the space, sharing as the settings say."""
    return Supernet(space, make_scheme(settings), seed=settings.seed)


def make_scheme(settings: TrainSettings) -> Scheme:
    """The sharing scheme that the settings name.

    Raises:
        InputError: an unknown scheme, or a keyword or value that it does not take.
    """
    name = settings.scheme or Recipe.scheme
    scheme = call("scheme", name, resolve("scheme", name), settings.scheme_settings)
    if not isinstance(scheme, Scheme):
        raise InputError(f"scheme {name!r} made a {type(scheme).__name__}, not a Scheme")
    return scheme


def score_extremes(supernet: Supernet, data: Data) -> dict[str, dict[str, float]]:
    """What the largest and the smallest subnet score on the validation split, by the name of the measure."""
    ends: list[Arch] = [supernet.space.largest, supernet.space.smallest]
    batches = data.validation_batches(data.evaluation_batch)
    found = scores(supernet, ends, batches, calibration(data))
    measures = {"validation_accuracy": found.accuracy}
    if data.kind == "text":
        measures |= {"validation_perplexity": found.perplexity, "validation_bits_per_byte": found.bits}
    return {
        name: {"largest": float(largest), "smallest": float(smallest)}
        for name, (largest, smallest) in measures.items()
    }


def score_words(data: Data, scored: Mapping[str, Mapping[str, float]]) -> str:
    """The two extremes by the measure of the data's kind."""
    if data.score == "accuracy":
        ends = {name: f"{value:.1%}" for name, value in scored["validation_accuracy"].items()}
    else:
        bits = scored["validation_bits_per_byte"]
        ends = {
            name: f"{value:.3f} ({bits[name]:.3f} bits per byte)"
            for name, value in scored["validation_perplexity"].items()
        }
    return f"validation {data.score}: largest {ends['largest']}, smallest {ends['smallest']}"


def calibration(data: Data) -> list[torch.Tensor]:
    """The fixed inputs on which batch-norm statistics are measured."""
    return [x for x, _ in data.calibration_batches()]


def is_trained(folder: Path) -> bool:
    """Whether the folder holds a finished supernet."""
    return (folder / WEIGHTS).is_file() and sidecar(folder / WEIGHTS).is_file()


def weights_digest(folder: Path) -> str:
    """The SHA-256 of the supernet's weights, as recorded beside them."""
    return str(json.loads(sidecar(folder / WEIGHTS).read_text())["sha256"])


def load_supernet(folder: Path, settings: TrainSettings, data: Data) -> Supernet:
    """The trained supernet of a run folder, in eval mode.

    Raises:
        InputError: the weights are damaged or do not fit the settings.
    """
    return load_weights(folder, settings, make_space(settings.space, settings.space_settings, data))


def load_weights(folder: Path, settings: TrainSettings, space: SearchSpace) -> Supernet:
    """The trained supernet of a run folder over its space, in eval mode.

    Raises:
        InputError: the weights are damaged or do not fit the space.
    """
    supernet = make_supernet(space, settings)
    tensors, _ = load_tensors(folder / WEIGHTS)
    try:
        supernet.load_shared_state(tensors)
    except InputError as error:
        raise InputError(f"{folder / WEIGHTS}: {error}") from None
    return supernet.eval()
