"""Exact costs of a network from its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search_spaces.trace import Layer

Vector = NDArray[np.int64]


class Costs(NamedTuple):
    """Costs of a population at batch 1 and float32, int64 [n] each."""

    macs: Vector  # multiply-adds, each counted once
    params: Vector  # learnable numbers; tied ones once
    activation_bytes: Vector  # everything that layers write
    weight_bytes: Vector  # parameters and buffers


def layer_costs(layers: Sequence[Layer]) -> Mapping[str, tuple[float, ...]]:
    """(macs, params, activation bytes, weight bytes) of each module that runs layers, by its dotted name."""
    parts: dict[str, tuple[float, ...]] = {}
    for layer in layers:
        macs, params, activation, weight = parts.get(layer.name, (0, 0, 0, 0))
        parts[layer.name] = (
            macs + layer.macs,
            params + layer.params,
            activation + layer.output_bytes,
            weight + layer.weight_bytes,
        )
    return parts
