"""What it means to be a target: something that answers how long a network takes, and says how it knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace

Population: TypeAlias = NDArray[np.int16]  # [n, choices], -1 where a choice is not in force
Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
PRECISION_BYTES: dict[str, int] = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Provenance:
    """Where a number comes from.

    `measured`: timed on the device itself. `predicted`: by a model fitted to measurements. `estimated`: from
    a spec sheet, uncalibrated. `computed`: counted exactly. `detail` names device, runtime, precision, batch.
    """

    kind: Literal["measured", "predicted", "estimated", "computed"]
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.detail})"

    def to_dict(self) -> dict[str, str]:
        """For run.json."""
        return asdict(self)


@runtime_checkable
class Target(Protocol):
    """A device with a runtime, a precision and a batch size.

    A target answers the same population with the same numbers for as long as the process lives. `cheap` says
    whether 100,000 archs take about a second, so that a searcher may ask freely, or each arch a measurement.
    """

    @property
    def name(self) -> str:
        """As resolved: `jetson-orin-nano`, also when it was found as `jetson`."""

    @property
    def title(self) -> str:
        """For people: `NVIDIA Jetson Orin Nano 8GB`."""

    @property
    def alias(self) -> str | None:
        """The other name under which it was found, if so."""

    @property
    def runtime(self) -> str:
        """What executes the network: `tensorrt`, `onnxruntime`, `pytorch`."""

    @property
    def precision(self) -> str:
        """fp32, fp16 or int8."""

    @property
    def batch(self) -> int:
        """Images per forward pass."""

    @property
    def unit(self) -> str:
        """Of `latency`: "ms"."""

    @property
    def cheap(self) -> bool:
        """Whether many thousand archs may be asked about."""

    @property
    def opset(self) -> int:
        """The ONNX opset that the target's runtime reads and that the export writes."""

    @property
    def provenance(self) -> Provenance:
        """Where the numbers come from."""

    @property
    def caveat(self) -> str:
        """One sentence to print beside the numbers; empty when there is nothing to say."""

    def latency(self, space: SearchSpace, population: Population) -> NDArray[np.float64]:
        """Milliseconds of one forward pass of a whole batch. population [n, choices] -> [n]."""

    def describe(self) -> dict[str, Any]:
        """`basics` and more: all of the above and the figures behind it, JSON-able."""


def basics(target: Target) -> dict[str, Any]:
    """What every target says of itself, JSON-able: the beginning of `Target.describe`."""
    return {
        "name": target.name,
        "title": target.title,
        "alias": target.alias,
        "runtime": target.runtime,
        "precision": target.precision,
        "batch": target.batch,
        "unit": target.unit,
        "cheap": target.cheap,
        "opset": target.opset,
        "provenance": target.provenance.to_dict(),
        "caveat": target.caveat,
    }
