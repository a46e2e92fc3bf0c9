"""What a search trades: named objectives that evaluate populations and say where their numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from predictors.target import Provenance, Target
from search_spaces import Population, SearchSpace
from supernets import Supernet
from supernets.evaluate import evaluate

Evaluate: TypeAlias = Callable[[Population], NDArray[np.float64]]
Batches: TypeAlias = Any  # re-iterable batches x [B, C, H, W], y [B]

COUNTED = {
    "params": "learnable numbers, counted",
    "macs": "multiply-adds per image, counted",
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


def accuracy(
    supernet: Supernet, data: Batches, calibration: Sequence[Tensor], images: int, device: str
) -> Objective:
    """Top-1 accuracy in [0, 1] on validation images with the supernet's weights, batch norm recalibrated."""
    space = supernet.space
    detail = f"top-1 of {images} validation images with the supernet's weights, pytorch on {device}, fp32"
    return Objective(
        "accuracy",
        "",
        "maximize",
        cheap=False,
        provenance=Provenance("measured", detail),
        evaluate=lambda population: evaluate(supernet, space.archs(population), data, calibration),
    )


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
