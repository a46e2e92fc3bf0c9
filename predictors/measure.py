"""Timing modules on this machine.

One visit to a module is one untimed pass, which brings its weights back into the caches, then a burst of
timed ones. Modules that are compared take turns, so that a clock that drifts drifts for all of them. The
median is the result; one hiccup would move a mean, and a minimum is a pass that hardly ever happens.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from predictors import machine
from search_spaces.errors import InputError

STEADY = 0.05  # how far the median of the second half may lie from that of the first
ROUNDS = 5  # visits to each module
ATTEMPTS = 3  # until the machine is steady
Inputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Measurement:
    """Time of one forward pass of a batch, as the caller sees it."""

    median_ms: float
    p5_ms: float
    p95_ms: float
    repeats: int
    drift: float  # median of the second half of the samples over that of the first, less 1
    steady: bool  # whether the drift stayed within 5 % on one of three attempts
    device: str  # what the machine calls itself
    runtime: str
    precision: str
    batch: int
    threads: int
    cores: tuple[int, ...]  # on which the process was allowed to run
    clock_before_mhz: float | None  # None: the system does not tell
    clock_after_mhz: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "cores": list(self.cores)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Measurement:
        """What `to_dict` gave."""
        return cls(**{**record, "cores": tuple(record["cores"])})


@dataclass(frozen=True)
class Timing:
    """How long to measure."""

    warmup_s: float = 0.2  # per module
    min_s: float = 1.0  # of timed passes per module
    repeats: int = 50  # timed passes per module, at least
    max_s: float = 10.0  # of timed passes per module; a slow network gets fewer repeats, at least 5


def measure_module(
    module: nn.Module,
    inputs: Inputs,
    *,
    device: str = "cpu",
    warmup_s: float = 0.2,
    min_s: float = 1.0,
    repeats: int = 50,
    threads: int | None = None,
) -> Measurement:
    """The time of `module(*inputs)` in eval mode on `device`, "cpu" or "cuda".

    The module and the inputs lie on the device already. `threads` None leaves PyTorch's number as it is; any
    other is set for the measurement only.

    Raises:
        InputError: `device` is neither, or a number is out of range.
    """
    timing = Timing(warmup_s=warmup_s, min_s=min_s, repeats=repeats)
    return measure_modules([(module, inputs)], device=device, timing=timing, threads=threads)[0]


def measure_modules(
    pairs: Sequence[tuple[nn.Module, Inputs]],
    *,
    device: str = "cpu",
    timing: Timing | None = None,
    threads: int | None = None,
) -> list[Measurement]:
    """One measurement for each (module, inputs), taken in turns so that they can be compared.

    Those that were not steady are measured again, up to three times in all.

    Raises:
        InputError: as `measure_module`.
    """
    timing = timing or Timing()
    _check(device, timing, threads)
    measured: list[Measurement | None] = [None] * len(pairs)
    with torch.inference_mode(), _threads(threads), _no_collection():
        todo = list(range(len(pairs)))
        for _ in range(ATTEMPTS):
            found = _attempt([pairs[i] for i in todo], device, timing)
            for i, measurement in zip(todo, found, strict=True):
                measured[i] = measurement
            todo = [i for i, m in zip(todo, found, strict=True) if not m.steady]
            if not todo:
                break
    return [m for m in measured if m is not None]


def _attempt(pairs: Sequence[tuple[nn.Module, Inputs]], device: str, timing: Timing) -> list[Measurement]:
    calls = [(module.eval(), inputs if isinstance(inputs, tuple) else (inputs,)) for module, inputs in pairs]
    clock = machine.cpu_clock_mhz if device == "cpu" else machine.gpu_clock_mhz
    passes = [_plan(_warm_up(module, inputs, device, timing), timing) for module, inputs in calls]
    before = clock()
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for (module, inputs), taken, count in zip(calls, samples, passes, strict=True):
            _timed(module, inputs, device)
            taken.extend(_timed(module, inputs, device) for _ in range(math.ceil(count / ROUNDS)))
    after = clock()
    title = machine.cpu_title() if device == "cpu" else machine.gpu_title()
    return [
        replace(
            summarise(taken),
            device=title,
            precision=_precision(module, inputs[0]),
            batch=inputs[0].shape[0] if inputs[0].dim() else 1,
            threads=torch.get_num_threads(),
            cores=machine.affinity(),
            clock_before_mhz=before,
            clock_after_mhz=after,
        )
        for (module, inputs), taken in zip(calls, samples, strict=True)
    ]


def summarise(samples_ms: Sequence[float]) -> Measurement:
    """Median, percentiles and drift of samples in the order in which they were taken, without the machine."""
    half = len(samples_ms) // 2
    drift = median(samples_ms[half:]) / median(samples_ms[:half]) - 1 if half else 0.0
    p5, p50, p95 = (float(q) for q in np.percentile(samples_ms, [5, 50, 95]))
    return Measurement(
        median_ms=p50,
        p5_ms=p5,
        p95_ms=p95,
        repeats=len(samples_ms),
        drift=drift,
        steady=abs(drift) <= STEADY,
        device="",
        runtime=f"pytorch {torch.__version__} eager",
        precision="",
        batch=0,
        threads=0,
        cores=(),
        clock_before_mhz=None,
        clock_after_mhz=None,
    )


def _warm_up(module: nn.Module, inputs: tuple[Tensor, ...], device: str, timing: Timing) -> float:
    """Runs the module for a while; gives the time of the last passes in seconds."""
    spent, last = 0.0, [math.inf]
    while spent < timing.warmup_s or len(last) < 3:
        last = [*last[-3:], _timed(module, inputs, device) / 1e3]
        spent += last[-1]
    return min(last)


def _plan(pass_s: float, timing: Timing) -> int:
    wanted = max(timing.repeats, math.ceil(timing.min_s / pass_s))
    return max(min(wanted, int(timing.max_s / pass_s)), ROUNDS)


def _timed(module: nn.Module, inputs: tuple[Tensor, ...], device: str) -> float:
    start = time.perf_counter_ns()
    module(*inputs)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter_ns() - start) / 1e6


def _precision(module: nn.Module, tensor: Tensor) -> str:
    if not tensor.is_floating_point():  # tokens: the arithmetic is that of the weights
        tensor = next(module.parameters(), tensor)
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    return names.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))


def _check(device: str, timing: Timing, threads: int | None) -> None:
    if device not in ("cpu", "cuda"):
        raise InputError(f"cannot measure on {device!r}; this machine has 'cpu' and perhaps 'cuda'")
    if timing.repeats < 1 or timing.min_s < 0 or timing.warmup_s < 0 or timing.max_s <= 0:
        raise InputError(f"cannot measure by {timing}; repeats is at least 1 and times are not negative")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; it is at least 1")


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A garbage collection in the middle of a pass is no property of the network."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
