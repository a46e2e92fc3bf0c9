"""Which images train, which the search may look at, and which nobody sees until the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.seeds import TEST_SPLIT, VALIDATION_SPLIT, stream
from search_spaces.errors import InputError

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Splits:
    """Positions in the whole collection, ascending; the three are disjoint."""

    train: Indices
    validation: Indices
    test: Indices

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images in each split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split(
    labels: Indices,
    *,
    seed: int,
    validation: float,
    test: float,
    own_validation: Indices | None = None,
    own_test: Indices | None = None,
) -> Splits:
    """Divide a collection with `labels` [N] class by class; parts that the source itself names stay.

    A fraction is of the images that no part of the source's own claims. The test images do not depend on
    `seed`, so runs with different seeds are compared on the same images; the validation images do.
    Each class gives every carved part its share rounded to whole images, at least one when it can.

    Raises:
        InputError: fractions outside (0, 1) or a part that would be empty.
    """
    carved = validation * (own_validation is None) + test * (own_test is None)
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0 < fraction < 1:
            raise InputError(f"{name} = {fraction:g} is not a fraction between 0 and 1")
    if carved >= 1:
        raise InputError(f"validation {validation:g} and test {test:g} leave nothing to train on")
    claimed = [part for part in (own_validation, own_test) if part is not None]
    pool = np.setdiff1d(np.arange(len(labels)), np.concatenate(claimed) if claimed else [])
    rest = pool
    if own_test is None:
        rest, own_test = carve(labels, rest, pool, test, stream(TEST_SPLIT, 0))
    if own_validation is None:
        rest, own_validation = carve(labels, rest, pool, validation, stream(VALIDATION_SPLIT, seed))
    splits = Splits(train=rest, validation=np.sort(own_validation), test=np.sort(own_test))
    for name, size in splits.sizes.items():
        if size == 0:
            raise InputError(f"{len(labels)} images are too few: the {name} split would be empty")
    return splits


def carve(
    labels: Indices, among: Indices, pool: Indices, fraction: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """(rest, taken) of `among`: each class gives `fraction` of its number in `pool`, never its last image."""
    taken: list[Indices] = []
    in_pool, in_among = labels[pool], labels[among]
    for label in np.unique(in_pool):
        members = among[in_among == label]
        wanted = int(np.floor(fraction * np.count_nonzero(in_pool == label) + 0.5))
        count = min(max(wanted, 1), len(members) - 1)
        taken.append(rng.permutation(members)[: max(count, 0)])
    chosen = np.sort(np.concatenate(taken)) if taken else np.empty(0, np.int64)
    return np.setdiff1d(among, chosen), chosen
