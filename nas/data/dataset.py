"""What training, search and export ask of a data set, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor

from nas.data.report import Skipped
from supernets.batches import Batches

Score = Literal["accuracy", "perplexity"]


class FixedPass(Protocol):
    """One pass over a split in a fixed order; can be iterated any number of times."""

    @property
    def count(self) -> int:
        """Labels in a pass."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and their labels, batch by batch."""


class Data(Protocol):
    """Inputs and labels in three disjoint splits: training sees the first, search the second, the third is
    looked at once."""

    @property
    def kind(self) -> Literal["images", "text"]:
        """What the inputs are."""

    @property
    def inputs(self) -> str:
        """What a network is given one of, in the plural: "images", "windows" of text."""

    @property
    def unit(self) -> str:
        """What a label belongs to, in the plural: "images", "tokens"."""

    @property
    def score(self) -> Score:
        """The measure by which networks are compared where nothing else is asked for."""

    @property
    def evaluation_batch(self) -> int:
        """Inputs per forward pass when nothing is trained."""

    @property
    def source(self) -> str:
        """As given."""

    @property
    def name(self) -> str:
        """For people and file names."""

    @property
    def fingerprint(self) -> str:
        """Changes when the content, the labels or a split does."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Of the splits `train`, `validation` and `test`, in what the data is counted in: images or bytes."""

    @property
    def skipped(self) -> Sequence[Skipped]:
        """What could not be read and is left out."""

    @property
    def space_settings(self) -> Mapping[str, int]:
        """Keywords that a search space takes from the data."""

    @property
    def shape(self) -> str:
        """What the inputs and labels look like, in a few words."""

    def train_batches(self, batch_size: int, seed: int) -> Batches:
        """Batches of the training split in an order that depends on the seed and the epoch."""

    def validation_batches(self, batch_size: int) -> FixedPass:
        """All of the validation split."""

    def test_batches(self, batch_size: int) -> FixedPass:
        """All of the test split."""

    def calibration_batches(self) -> Sequence[tuple[Tensor, Tensor]]:
        """A few batches of the training split, always the same, for statistics of normalisations."""

    def describe(self) -> dict[str, Any]:
        """How this data was made, as JSON-able values."""

    def facts(self, input_shape: Sequence[int]) -> dict[str, Any]:
        """What the user of a network with this input needs to feed it and to read its output; JSON-able."""
