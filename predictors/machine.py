"""What this machine is, and how fast it runs at the moment."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from statistics import fmean

import torch

CPUINFO = Path("/proc/cpuinfo")
CPUFREQ = Path("/sys/devices/system/cpu")


@cache
def cpu_title() -> str:
    """The processor's own name and how many of its cores this process may use."""
    fields = _cpuinfo("model name") or _cpuinfo("Model") or _cpuinfo("Hardware")
    model = fields[0] if fields else platform.processor() or platform.machine()
    return f"{model} ({len(affinity())} cores)"


def affinity() -> tuple[int, ...]:
    """The cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_clock_mhz() -> float | None:
    """Mean clock of the cores that this process may use, or None where the system does not tell.

    In a virtual machine this is the nominal clock, not the one in force.
    """
    try:
        files = [CPUFREQ / f"cpu{core}/cpufreq/scaling_cur_freq" for core in affinity()]
        return fmean(int(file.read_text()) for file in files) / 1e3
    except (OSError, ValueError):
        pass
    clocks = [float(text) for text in _cpuinfo("cpu MHz")]
    return fmean(clocks) if clocks else None


def gpu_title() -> str:
    """The current CUDA device's own name."""
    return torch.cuda.get_device_name()


def gpu_clock_mhz() -> float | None:
    """Clock of the current CUDA device's multiprocessors by nvidia-smi, or None where it does not tell."""
    command = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"]
    uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
    if uuid is not None:
        command.append(f"--id=GPU-{uuid}")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        return float(answer.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _cpuinfo(field: str) -> list[str]:
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for key, _, value in pairs if key.strip() == field]
