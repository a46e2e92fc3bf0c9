"""Latency from a spec sheet: the roofline model, kernel by kernel.

    t(kernel) = max(2 * MACs / (peak * efficiency), bytes / (bandwidth * efficiency)) + launch overhead
    t(network) = sum over kernels, one after the other

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model". The efficiencies
below are one table for all devices: round figures, chosen in view of the published measurements that
`studies/benchmarks/roofline_vs_measured.py` compares with, so its errors are those of the data that the
figures were chosen on. Nothing is fitted per device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from predictors.devices import Device
from predictors.fusion import Kernel, kernels
from predictors.target import PRECISION_BYTES, Population, Provenance, basics
from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from search_spaces.table import AdditiveTable
from search_spaces.trace import Layer

PICOSECONDS_PER_MS = 1e9
MEMORY_EFFICIENCY = 0.5  # of the bandwidth on paper, reading and writing tensors of a few hundred kB

# Fraction of the peak that a kernel of a kind reaches, on plain arithmetic units and on tensor cores. At
# batch 1 there is too little work to keep tensor cores fed, and a depthwise convolution has no matrix product
# to give them, so it runs on the plain units, at the fp32 peak.
VECTOR_EFFICIENCY = {"dense": 0.5, "grouped": 0.2, "depthwise": 0.1}
TENSOR_CORE_EFFICIENCY = {"dense": 0.25}

CAVEAT = (
    "from the spec sheet, not calibrated: expect errors of a factor of 2 or more in "
    "milliseconds, and trust the ranking more than the numbers"
)


@dataclass(frozen=True)
class Cost:
    """What one kernel takes by the roofline."""

    name: str  # dotted name of the module that leads the kernel
    ops: tuple[str, ...]
    bound: str  # compute, memory or launch: the largest of the three terms
    compute_us: float
    memory_us: float
    launch_us: float

    @property
    def total_us(self) -> float:
        """Compute and memory overlap, the launch does not."""
        return max(self.compute_us, self.memory_us) + self.launch_us


def arithmetic(layer: Layer) -> str:
    """How a layer multiplies: "dense" (a matrix product), "grouped" or "depthwise" (channel by channel)."""
    if layer.kind != "conv2d" or layer.groups == 1:
        return "dense"
    return "depthwise" if layer.weight is not None and layer.weight[1] == 1 else "grouped"


def cost(kernel: Kernel, device: Device, precision: str, batch: int) -> Cost:
    """The three terms of one kernel's time at a batch size.

    Raises:
        InputError: the device has no peak at this precision.
    """
    how = arithmetic(kernel.lead)
    if device.tensor_cores and precision != "fp32":
        if how in TENSOR_CORE_EFFICIENCY:
            rate = device.peak(precision) * TENSOR_CORE_EFFICIENCY[how]
        else:
            rate = device.peak("fp32") * VECTOR_EFFICIENCY[how]
    else:
        rate = device.peak(precision) * VECTOR_EFFICIENCY[how]
    scale = PRECISION_BYTES[precision] / PRECISION_BYTES["fp32"]
    moved = (kernel.activation_bytes * batch + kernel.weight_bytes) * scale
    compute_us = 2 * kernel.macs * batch / rate * 1e6
    memory_us = moved / (device.bandwidth_gbs * 1e9 * MEMORY_EFFICIENCY) * 1e6
    launch_us = device.launch_us * kernel.launches
    terms = {"compute": compute_us, "memory": memory_us, "launch": launch_us}
    return Cost(
        name=kernel.lead.name,
        ops=tuple(layer.op for layer in kernel.layers),
        bound=max(terms, key=terms.__getitem__),
        compute_us=compute_us,
        memory_us=memory_us,
        launch_us=launch_us,
    )


@dataclass(frozen=True)
class RooflineTarget:
    """A device of the spec sheet: cheap, uncalibrated, and it says so.

    Immutable; the tables derived for the last few spaces are remembered for all targets together.
    """

    device: Device
    precision: str
    batch: int = 1
    alias: str | None = None

    unit: ClassVar[str] = "ms"
    cheap: ClassVar[bool] = True
    caveat: ClassVar[str] = CAVEAT

    def __post_init__(self) -> None:
        self.device.peak(self.precision)
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}; it is at least 1")

    @property
    def name(self) -> str:
        """Of the device."""
        return self.device.name

    @property
    def title(self) -> str:
        """Of the device, for people."""
        return self.device.title

    @property
    def runtime(self) -> str:
        """The device's usual one."""
        return self.device.runtime

    @property
    def opset(self) -> int:
        """What the export should write for the device's runtime."""
        return self.device.opset

    @property
    def provenance(self) -> Provenance:
        """Always estimated."""
        return Provenance(
            "estimated",
            f"roofline of the spec sheet of {self.title}, uncalibrated; {self.runtime}, {self.precision}, "
            f"batch {self.batch}",
        )

    def latency(self, space: SearchSpace, population: Population) -> NDArray[np.float64]:
        """Milliseconds per forward pass of a batch, by table. population [n, choices] -> [n]."""
        return _table(self.device, self.precision, self.batch, space)(population)[:, 0] / PICOSECONDS_PER_MS

    def layers_latency(self, layers: Sequence[Layer]) -> float:
        """Milliseconds for one network given by its layers; equals `latency` of its arch exactly."""
        parts = part_picoseconds(layers, self.device, self.precision, self.batch)
        return sum(parts.values()) / PICOSECONDS_PER_MS

    def breakdown(self, layers: Sequence[Layer]) -> list[Cost]:
        """What each kernel takes, in the order in which they run."""
        return [cost(kernel, self.device, self.precision, self.batch) for kernel in kernels(layers)]

    def describe(self) -> dict[str, Any]:
        """The target and the figures behind its numbers, for run.json."""
        return {
            **basics(self),
            "device": asdict(self.device),
            "efficiency": {
                "memory": MEMORY_EFFICIENCY,
                "vector": VECTOR_EFFICIENCY,
                "tensor_core": TENSOR_CORE_EFFICIENCY,
            },
        }


def part_picoseconds(layers: Sequence[Layer], device: Device, precision: str, batch: int) -> dict[str, float]:
    """Time of each part of a network: a kernel counts for the module that leads it.

    Whole picoseconds, rounded up: sums of whole numbers are exact in any order, so the table over parts and
    the sum over one network's kernels agree to the last bit.
    """
    parts: dict[str, float] = {}
    for kernel in kernels(layers):
        took = float(math.ceil(cost(kernel, device, precision, batch).total_us * 1e6))
        parts[kernel.lead.name] = parts.get(kernel.lead.name, 0.0) + took
    return parts


@lru_cache(maxsize=16)
def _table(device: Device, precision: str, batch: int, space: SearchSpace) -> AdditiveTable:
    return space.table(lambda layers: part_picoseconds(layers, device, precision, batch))
