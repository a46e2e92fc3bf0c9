"""What a search trades: named objectives that evaluate populations and say where their numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nas.data import Data
from predictors.target import Provenance, Target
from search_spaces import Population, SearchSpace
from supernets import Supernet
from supernets.evaluate import Scores, scores

Evaluate: TypeAlias = Callable[[Population], NDArray[np.float64]]
Batches: TypeAlias = Any  # re-iterable batches of inputs x and labels y
ScorePass: TypeAlias = Callable[[Population], Scores]

MEASURED = ("accuracy", "perplexity")  # with the supernet's weights, on labelled inputs

COUNTED = {
    "params": "learnable numbers, counted",
    "macs": "multiply-adds of one input, counted",
    "memory": "bytes of weights and of all activations at float32 and batch 1, counted",
}


@dataclass(frozen=True)
class Objective:
    """One number per arch.

    `cheap` ones can be asked for 100,000 archs at once, so limits on them are checked before anything
    expensive runs.
    """

    name: str
    unit: str
    direction: Literal["maximize", "minimize"]
    cheap: bool
    provenance: Provenance
    evaluate: Evaluate  # population [n, choices] -> [n], in `unit`

    def minimised(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values such that smaller is better."""
        return -values if self.direction == "maximize" else values


@dataclass(frozen=True)
class Limit:
    """The most that an objective may be: `Limit(latency, 3.0)`."""

    objective: Objective
    most: float

    @property
    def name(self) -> str:
        """As constraints are called in the study: "latency"."""
        return self.objective.name

    def violation(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far values [n] are beyond the limit, relative to it; at most 0 is within. [n]"""
        return values / self.most - 1.0

    def __str__(self) -> str:
        unit = f" {self.objective.unit}" if self.objective.unit else ""
        return f"{self.name} <= {self.most:,.10g}{unit}"


def one_pass(supernet: Supernet, data: Batches, calibration: Sequence[Tensor]) -> ScorePass:
    """population -> its scores on `data`. Accuracy and perplexity of the same population cost one pass."""
    last: tuple[bytes, Scores] | None = None

    def run(population: Population) -> Scores:
        nonlocal last
        key = population.tobytes()
        if last is None or last[0] != key:
            last = key, scores(supernet, supernet.space.archs(population), data, calibration)
        return last[1]

    return run


def accuracy(run: ScorePass, labels: str, device: str) -> Objective:
    """Top-1 accuracy in [0, 1] with the supernet's weights, batch norm recalibrated.

    `labels` says on what: "360 validation images".
    """
    detail = f"top-1 of {labels} with the supernet's weights, pytorch on {device}, fp32"
    return Objective(
        "accuracy",
        "",
        "maximize",
        cheap=False,
        provenance=Provenance("measured", detail),
        evaluate=lambda population: run(population).accuracy,
    )


def perplexity(run: ScorePass, labels: str, device: str) -> Objective:
    """exp of the mean cross-entropy in nats per token, with the supernet's weights."""
    detail = (
        f"exp of the mean cross-entropy of {labels} with the supernet's weights, pytorch on {device}, fp32"
    )
    return Objective(
        "perplexity",
        "",
        "minimize",
        cheap=False,
        provenance=Provenance("measured", detail),
        evaluate=lambda population: run(population).perplexity,
    )


def default_objectives(data: Data) -> tuple[str, ...]:
    """What is traded where nothing else is asked for: the score of the data's kind, and latency."""
    return (data.score, "latency")


def latency(space: SearchSpace, target: Target) -> Objective:
    """Milliseconds of one forward pass on the target."""
    return Objective(
        "latency",
        "ms",
        "minimize",
        cheap=target.cheap,
        provenance=target.provenance,
        evaluate=lambda population: target.latency(space, population),
    )


def counted(space: SearchSpace, name: str) -> Objective:
    """An exact count: params, macs, or memory (bytes of weights and of all activations, float32, batch 1)."""

    def count(population: Population) -> NDArray[np.float64]:
        costs = space.costs(population)
        numbers = {
            "params": costs.params,
            "macs": costs.macs,
            "memory": costs.weight_bytes + costs.activation_bytes,
        }
        return numbers[name].astype(np.float64)

    return Objective(
        name,
        "B" if name == "memory" else "",
        "minimize",
        cheap=True,
        provenance=Provenance("computed", COUNTED[name]),
        evaluate=count,
    )
