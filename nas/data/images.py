"""Images ready for use: splits, batches and the record of how they were made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from nas.data.augment import BatchAugmentation, PictureAugmentation
from nas.data.batches import FixedBatches, Normalisation, TrainBatches
from nas.data.collection import digest
from nas.data.dataset import Score
from nas.data.report import Report, Skipped
from nas.data.seeds import CALIBRATION, stream
from nas.data.splits import Indices, Splits
from nas.data.store import FileStore, Store
from search_spaces.errors import InputError

CALIBRATION_IMAGES = 256  # on which batch-norm statistics are measured, unless more are asked for


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images of one size and their labels in three disjoint splits.

    Training sees `train`, search sees `validation`; `test` is looked at once. Nothing changes after loading,
    except that damage found while reading files is added to `skipped`.
    """

    source: str  # as given
    name: str
    classes: tuple[str, ...]
    channels: int
    image_size: int  # pixels, height and width
    splits: Splits
    seed: int  # of the validation split and the calibration set
    normalisation: Normalisation
    statistics_from: str  # where mean and std come from
    augmentation: BatchAugmentation | PictureAugmentation
    crop: float | None  # share of the shorter side that is kept; None: stretched to the square
    fingerprint: str  # changes when the content, the labels or a split does
    report: Report
    store: Store
    labels: Tensor  # int64 [N], of the whole store

    kind: ClassVar[Literal["images", "text"]] = "images"
    inputs: ClassVar[str] = "images"
    unit: ClassVar[str] = "images"
    score: ClassVar[Score] = "accuracy"
    evaluation_batch: ClassVar[int] = 500

    @property
    def sizes(self) -> Mapping[str, int]:
        """Images of each split."""
        return self.splits.sizes

    @property
    def space_settings(self) -> Mapping[str, int]:
        """Keywords that a search space takes from the data."""
        return {"classes": len(self.classes), "channels": self.channels, "image_size": self.image_size}

    @property
    def shape(self) -> str:
        """What the images and labels look like."""
        return f"{len(self.classes)} classes, {self.channels} x {self.image_size} x {self.image_size}"

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, on the scale of value / divisor (0 to 1 for 8-bit images)."""
        return self.normalisation.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, on the same scale as `mean`."""
        return self.normalisation.std

    @property
    def train(self) -> Indices:
        """Positions of the training images in the store."""
        return self.splits.train

    @property
    def validation(self) -> Indices:
        """Positions of the validation images in the store."""
        return self.splits.validation

    @property
    def test(self) -> Indices:
        """Positions of the test images in the store."""
        return self.splits.test

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images left out, when loading or since."""
        late = tuple(self.store.late.values()) if isinstance(self.store, FileStore) else ()
        return self.report.skipped + late

    def train_batches(self, batch_size: int, seed: int, augment: bool = True) -> TrainBatches:
        """Shuffled batches of the training split, changed at random unless `augment` is false."""
        return TrainBatches(
            self.store,
            self.labels,
            self.train,
            _positive(batch_size),
            _seed(seed),
            self.normalisation,
            self.augmentation if augment else None,
        )

    def validation_batches(self, batch_size: int) -> FixedBatches:
        """All of the validation split, in a fixed order."""
        return self._fixed(self.validation, batch_size)

    def test_batches(self, batch_size: int) -> FixedBatches:
        """All of the test split, in a fixed order."""
        return self._fixed(self.test, batch_size)

    def calibration_batches(
        self, n: int = CALIBRATION_IMAGES, batch_size: int = 128
    ) -> list[tuple[Tensor, Tensor]]:
        """About `n` training images, unchanged, in batches of equal size: always the same for a split seed.

        Equal sizes because statistics of batches are averaged. A set smaller than `n` gives what it has.
        """
        chosen = self._calibration_order()[: min(_positive(n), len(self.train))]
        size = min(_positive(batch_size), len(chosen))
        return list(self._fixed(chosen[: len(chosen) // size * size], size))

    def describe(self) -> dict[str, Any]:
        """How this data was made, as JSON-able values."""
        return {
            "source": self.source,
            "name": self.name,
            "kind": self.kind,
            "classes": list(self.classes),
            "channels": self.channels,
            "image_size": self.image_size,
            "sizes": self.splits.sizes,
            "split_seed": self.seed,
            "fingerprint": self.fingerprint,
            "normalisation": {**_lists(asdict(self.normalisation)), "from": self.statistics_from},
            "transforms": {"train": self.augmentation.describe(), "resize": self._resize(self.image_size)},
            "calibration": {
                "of": "train",
                "seed": self.seed,
                "images": CALIBRATION_IMAGES,
                "digest": digest(self._calibration_order()[:CALIBRATION_IMAGES])[:16],
            },
            "in_memory": self.store.in_memory,
            **self.report.describe(),
            "skipped": [asdict(skipped) for skipped in self.skipped],
        }

    def facts(self, input_shape: Sequence[int]) -> dict[str, Any]:
        """What to do to a picture before a network with this input (C, H, W) sees it, and what it answers."""
        return {"classes": list(self.classes), "preprocessing": self.preprocessing(input_shape[-1])}

    def preprocessing(self, image_size: int | None = None) -> dict[str, Any]:
        """What to do to a picture before a network that takes `image_size` (default: the data's) sees it.

        JSON-able, and enough to feed an exported model without this project.
        """
        size = _positive(image_size or self.image_size)
        eight_bit = self.normalisation.divisor == 255
        return {
            "input": {"layout": "NCHW", "type": "float32", "shape": [self.channels, size, size]},
            "image_size": size,
            "channels": self.channels,
            "colour": {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels} channels"),
            "value_range": [0, 255] if eight_bit else "as stored (float)",
            "resize": self._resize(size),
            "divisor": self.normalisation.divisor,
            "mean": list(self.mean),
            "std": list(self.std),
            "formula": "(value / divisor - mean) / std",
            "exif_orientation": "applied",
        }

    def _fixed(self, indices: Indices, batch_size: int) -> FixedBatches:
        return FixedBatches(self.store, self.labels, indices, _positive(batch_size), self.normalisation)

    def _calibration_order(self) -> Indices:
        return stream(CALIBRATION, self.seed).permutation(self.train)

    def _resize(self, size: int) -> dict[str, Any]:
        how: dict[str, Any] = {"method": "bilinear", "antialias": True}
        if self.crop is None:
            return {**how, "to": [size, size], "crop": None}
        return {**how, "shorter_side": math.floor(size / self.crop), "crop": {"kind": "centre", "size": size}}


def _positive(number: int) -> int:
    if number < 1:
        raise InputError(f"{number} images in a batch or pixels on a side are too few; the least is 1")
    return number


def _seed(number: int) -> int:
    if number < 0:
        raise InputError(f"seed {number} is negative")
    return number


def _lists(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
