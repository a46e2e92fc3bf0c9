"""How good a supernet's networks are on the validation split, by the measure of the data's kind."""

from __future__ import annotations

from nas import objectives as make
from nas.data import Data
from nas.objectives import Objective
from nas.trained import calibration
from supernets import Supernet


def quality(supernet: Supernet, data: Data, device: str) -> Objective:
    """The objective that says so: accuracy of images, perplexity of text."""
    batches = data.validation_batches(data.evaluation_batch)
    run = make.one_pass(supernet, batches, calibration(data))
    measure = {"accuracy": make.accuracy, "perplexity": make.perplexity}[data.score]
    return measure(run, f"{batches.count} validation {data.unit}", device)
