"""How good a supernet's networks are on the validation split, whatever the data."""

from __future__ import annotations

from nas import objectives as make
from nas.data import Data
from nas.objectives import Objective
from nas.train import calibration
from supernets import Supernet

_BATCH = 500  # validation images per forward pass


def quality(supernet: Supernet, data: Data, device: str) -> Objective:
    """The objective that says so: accuracy of images."""
    return make.accuracy(
        supernet, data.validation_batches(_BATCH), calibration(data), len(data.validation), device
    )
