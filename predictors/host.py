"""The machine at hand as a target: every arch is built with random weights and timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predictors import machine
from predictors.measure import Measurement, Timing, measure_modules
from predictors.target import Population, Provenance, basics
from search_spaces.arch import Arch
from search_spaces.errors import InputError
from search_spaces.space import SearchSpace

PRECISIONS: dict[str, dict[str, torch.dtype]] = {
    "cpu": {"fp32": torch.float32},
    "cuda": {"fp32": torch.float32, "fp16": torch.float16},
}
TOGETHER = 8  # archs that are alive at once and take turns
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def check_cuda() -> None:
    """Nothing, where torch sees a GPU.

    Raises:
        InputError: it does not.
    """
    if not torch.cuda.is_available():
        raise InputError(
            f"target 'cuda' needs an NVIDIA GPU that torch can see; torch {torch.__version__} sees none "
            "here; use 'cpu', or a device of the spec sheet such as 'jetson-orin-nano'"
        )


@dataclass(frozen=True, eq=False)
class HostTarget:
    """`cpu` or `cuda` of this machine, with PyTorch in eager mode.

    Each arch is timed once per instance and remembered with its statistics; archs that are new to a call take
    turns in groups of eight. Weights are random and leave the global random state alone. One thread at a time
    may measure, since two would disturb each other.
    """

    name: str
    precision: str = "fp32"
    batch: int = 1
    threads: int | None = None  # None: as many as PyTorch is set to
    timing: Timing = field(default_factory=Timing)
    _measured: dict[tuple[str, str], Measurement] = field(default_factory=dict, repr=False)
    _layouts: dict[str, torch.memory_format] = field(default_factory=dict, repr=False)

    unit: ClassVar[str] = "ms"
    cheap: ClassVar[bool] = False
    runtime: ClassVar[str] = "pytorch"
    opset: ClassVar[int] = 18
    alias: ClassVar[str | None] = None
    caveat: ClassVar[str] = (
        "timed in PyTorch's eager mode with random weights; an inference runtime on the same machine is "
        "usually faster"
    )

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise InputError(f"this machine has no target {self.name!r} (known: {', '.join(PRECISIONS)})")
        if self.name == "cuda":
            check_cuda()
        if self.precision not in PRECISIONS[self.name]:
            allowed = ", ".join(PRECISIONS[self.name])
            raise InputError(
                f"target {self.name!r} is not measured in {self.precision} (precisions: {allowed})"
            )
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}; it is at least 1")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}; it is at least 1")

    @property
    def title(self) -> str:
        """The processor's own name."""
        return machine.cpu_title() if self.name == "cpu" else machine.gpu_title()

    @property
    def provenance(self) -> Provenance:
        """Always measured."""
        threads = self.threads or torch.get_num_threads()
        return Provenance(
            "measured",
            f"{self.title}, pytorch {torch.__version__} eager, {self.precision}, batch {self.batch}, "
            f"{threads} thread{'s' if threads > 1 else ''}, median",
        )

    def latency(self, space: SearchSpace, population: Population) -> NDArray[np.float64]:
        """Median milliseconds per forward pass of a batch. population [n, choices] -> [n].

        Takes about two seconds for each arch that was not asked about before.
        """
        return np.array([m.median_ms for m in self.measurements(space, population)], dtype=np.float64)

    def measurements(self, space: SearchSpace, population: Population) -> list[Measurement]:
        """The full statistics of each arch of the population, measured now or before."""
        archs = space.archs(population)
        new = list(dict.fromkeys(a for a in archs if (space.digest, a.digest) not in self._measured))
        for start in range(0, len(new), TOGETHER):
            group = new[start : start + TOGETHER]
            pairs = [self._pair(space, arch) for arch in group]
            found = measure_modules(pairs, device=self.name, timing=self.timing, threads=self.threads)
            for arch, measurement in zip(group, found, strict=True):
                self._measured[space.digest, arch.digest] = measurement
        return [self._measured[space.digest, arch.digest] for arch in archs]

    def describe(self) -> dict[str, Any]:
        """The target, how it measures and how that went so far, for run.json."""
        return {
            **basics(self),
            "threads": self.threads or torch.get_num_threads(),
            "cores": list(machine.affinity()),
            "timing": vars(self.timing),
            "measured_archs": len(self._measured),
            "unsteady_archs": sum(not m.steady for m in self._measured.values()),
            "layout": {key: str(value).removeprefix("torch.") for key, value in self._layouts.items()},
        }

    def _pair(self, space: SearchSpace, arch: Arch) -> tuple[nn.Module, Tensor]:
        if space.digest not in self._layouts:
            self._layouts[space.digest] = self._faster_layout(space)
        return self._make(space, arch, self._layouts[space.digest])

    def _make(self, space: SearchSpace, arch: Arch, layout: torch.memory_format) -> tuple[nn.Module, Tensor]:
        dtype = PRECISIONS[self.name][self.precision]
        with _private_randomness():
            module = space.build(arch).requires_grad_(False).eval()
            inputs = self._inputs(space, arch).to(self.name)
        module = module.to(device=self.name, dtype=dtype)
        if inputs.is_floating_point():
            inputs = inputs.to(dtype)
        if layout is torch.channels_last:
            module, inputs = module.to(memory_format=layout), inputs.contiguous(memory_format=layout)
        return module, inputs

    def _inputs(self, space: SearchSpace, arch: Arch) -> Tensor:
        """Random images, or as many random tokens as the network sees at once."""
        shape = (self.batch, *space.input_shape(arch))
        if space.reads_tokens:
            return torch.randint(space.classes, shape)
        return torch.randn(shape)

    def _faster_layout(self, space: SearchSpace) -> torch.memory_format:
        """channels_last where it makes the largest network of a space faster, else the usual layout.

        One layout for all archs of a space: otherwise a difference between archs may be one of layouts.
        """
        usual = self._make(space, space.largest, torch.contiguous_format)
        if not any(isinstance(m, nn.Conv2d) for m in usual[0].modules()) or usual[1].dim() != 4:
            return torch.contiguous_format
        pairs = [usual, self._make(space, space.largest, torch.channels_last)]
        brief = replace(self.timing, min_s=min(self.timing.min_s, 0.3), repeats=min(self.timing.repeats, 20))
        times = [
            m.median_ms for m in measure_modules(pairs, device=self.name, timing=brief, threads=self.threads)
        ]
        return LAYOUTS[int(np.argmin(times))]


@contextmanager
def _private_randomness() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
