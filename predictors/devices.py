"""The spec sheet: what public sources say about devices that are not at hand."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from search_spaces.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Device:
    """One row of `devices.csv`. Peaks are dense, a multiply-add counted as two operations.

    `sources` says for every figure where it comes from; what could not be confirmed is marked (unverified).
    """

    name: str
    title: str
    kind: str  # edge gpu, edge cpu, phone, server gpu, desktop gpu, cpu
    tensor_cores: bool  # whether the fp16 and int8 peaks are those of matrix units
    peak_fp32_tflops: float
    peak_fp16_tflops: float | None  # None: no such arithmetic, or no figure
    peak_int8_tops: float | None
    bandwidth_gbs: float
    memory_gb: float
    launch_us: float  # fixed cost of every kernel
    precision: str  # the default one
    runtime: str
    opset: int
    opset_note: str
    aliases: tuple[str, ...]
    sources: str
    notes: str

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those for which there is a peak."""
        return tuple(name for name, peak in self._peaks().items() if peak is not None)

    def peak(self, precision: str) -> float:
        """Operations per second at a precision.

        Raises:
            InputError: the device has no figure for it.
        """
        peak = self._peaks().get(precision)
        if peak is None:
            raise InputError(
                f"target {self.name!r} has no {precision} figure in the spec sheet "
                f"(precisions: {', '.join(self.precisions)})"
            )
        return peak * 1e12

    def _peaks(self) -> dict[str, float | None]:
        return {"fp32": self.peak_fp32_tflops, "fp16": self.peak_fp16_tflops, "int8": self.peak_int8_tops}


@cache
def spec_sheet() -> MappingProxyType[str, Device]:
    """All devices by name, in the order of the file."""
    text = files("predictors").joinpath("devices.csv").read_text(encoding="utf-8")
    return MappingProxyType({row["name"]: _device(row) for row in csv.DictReader(text.splitlines())})


def aliases() -> dict[str, str]:
    """Other names, each with the device that it stands for."""
    return {alias: device.name for device in spec_sheet().values() for alias in device.aliases}


def device(name: str) -> Device:
    """The device of that name or alias.

    Raises:
        InputError: there is none; the message says which come near.
    """
    sheet = spec_sheet()
    resolved = aliases().get(name, name)
    if resolved not in sheet:
        raise InputError(f"unknown device {name!r}{did_you_mean(name, [*sheet, *aliases()])}")
    return sheet[resolved]


def _device(row: dict[str, str]) -> Device:
    return Device(
        name=row["name"],
        title=row["title"],
        kind=row["kind"],
        tensor_cores=row["tensor_cores"] == "yes",
        peak_fp32_tflops=float(row["peak_fp32_tflops"]),
        peak_fp16_tflops=float(row["peak_fp16_tflops"]) if row["peak_fp16_tflops"] else None,
        peak_int8_tops=float(row["peak_int8_tops"]) if row["peak_int8_tops"] else None,
        bandwidth_gbs=float(row["bandwidth_gbs"]),
        memory_gb=float(row["memory_gb"]),
        launch_us=float(row["launch_us"]),
        precision=row["precision"],
        runtime=row["runtime"],
        opset=int(row["opset"]),
        opset_note=row["opset_note"],
        aliases=tuple(row["aliases"].split()),
        sources=row["sources"],
        notes=row["notes"],
    )
