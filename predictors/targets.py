"""Targets by name: this machine, the devices of the spec sheet, and anybody's own as `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from functools import cache

import torch

from predictors.devices import Device, aliases, spec_sheet
from predictors.host import PRECISIONS, HostTarget
from predictors.roofline import RooflineTarget
from predictors.target import Target
from search_spaces.errors import InputError, did_you_mean


@dataclass(frozen=True)
class TargetRow:
    """One line of the list of targets."""

    name: str
    title: str
    aliases: tuple[str, ...]
    runtime: str
    precision: str  # the default one
    precisions: tuple[str, ...]  # all that may be asked for
    truth: str  # how its latency is known
    available: bool
    figures: str  # the numbers that matter most
    sources: str


def find(name: str, precision: str | None = None, batch: int = 1, threads: int | None = None) -> Target:
    """The target of that name: `cpu`, `cuda`, a device or alias of the spec sheet, or `module:attribute`.

    Without `precision` it is the device's usual one. `threads` is for `cpu`. Finding the same machine with
    the same settings again gives the same target, so that nothing is measured twice in a process.
    `module:attribute` is a `Target`, or a function `(precision, batch) -> Target`.

    Raises:
        InputError: no such target (the message says which come near), no such precision there, a batch
            below 1, `cuda` without a GPU, or a module that cannot be imported.
    """
    if ":" in name:
        _refuse_threads(name, threads)
        return _own(name, precision, batch)
    if name in PRECISIONS:
        if name != "cpu":
            _refuse_threads(name, threads)
        elif threads is None:
            threads = torch.get_num_threads()  # as it is now: training may lower it later
        return _host(name, precision or "fp32", batch, threads)
    sheet = spec_sheet()
    resolved = aliases().get(name, name)
    if resolved not in sheet:
        raise InputError(f"unknown target {name!r}{did_you_mean(name, names())}")
    _refuse_threads(name, threads)
    device = sheet[resolved]
    alias = name if name != resolved else None
    return RooflineTarget(device, precision or device.precision, batch, alias)


def names() -> list[str]:
    """Every name and alias that `find` knows."""
    return [*PRECISIONS, *spec_sheet(), *aliases()]


def all() -> list[TargetRow]:
    """A row for each target: this machine first, then the spec sheet in its order."""
    return [*(_host_row(name) for name in PRECISIONS), *(_device_row(d) for d in spec_sheet().values())]


@cache
def _host(name: str, precision: str, batch: int, threads: int | None) -> HostTarget:
    return HostTarget(name, precision, batch, threads)


def _host_row(name: str) -> TargetRow:
    try:
        target = _host(name, "fp32", 1, None)
        title, truth, available = target.title, "measured here", True
    except InputError:
        title, truth, available = "none on this machine", "needs an NVIDIA GPU that torch can see", False
    return TargetRow(
        name=name,
        title=title,
        aliases=(),
        runtime=HostTarget.runtime,
        precision="fp32",
        precisions=tuple(PRECISIONS[name]),
        truth=truth,
        available=available,
        figures="",
        sources="timed in this process, eager mode, random weights",
    )


def _device_row(device: Device) -> TargetRow:
    peaks = {
        "fp32": (device.peak_fp32_tflops, "TFLOP/s"),
        "fp16": (device.peak_fp16_tflops, "TFLOP/s"),
        "int8": (device.peak_int8_tops, "TOP/s"),
    }
    peak, unit = peaks[device.precision]
    return TargetRow(
        name=device.name,
        title=device.title,
        aliases=device.aliases,
        runtime=device.runtime,
        precision=device.precision,
        precisions=device.precisions,
        truth="estimated from the spec sheet",
        available=True,
        figures=f"{peak:g} {unit} {device.precision}, {device.bandwidth_gbs:g} GB/s, {device.memory_gb:g} GB",
        sources=device.sources,
    )


def _own(name: str, precision: str | None, batch: int) -> Target:
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # an installed command does not look there by itself
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise InputError(f"target {name!r}: cannot import {module_name!r} ({error})") from error
    except AttributeError:
        raise InputError(f"target {name!r}: module {module_name!r} has no {attribute!r}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"target {name!r} is not of the form module:attribute ({error})") from None
    if callable(found) and not isinstance(found, Target):
        found = found(precision=precision, batch=batch)
    if not isinstance(found, Target):
        raise InputError(f"target {name!r} is a {type(found).__name__}; it has to be a predictors.Target")
    if (precision is not None and found.precision != precision) or found.batch != batch:
        raise InputError(
            f"target {name!r} is {found.precision} at batch {found.batch}, "
            f"not {precision or found.precision} at batch {batch}"
        )
    return found


def _refuse_threads(name: str, threads: int | None) -> None:
    if threads is not None:
        raise InputError(f"threads = {threads} is for target 'cpu', not for {name!r}")
