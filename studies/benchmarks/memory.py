"""The memory that training a supernet takes over training its largest subnet alone.

    python studies/benchmarks/memory.py

Writes memory.csv beside this file. MobileNetV3 at 96 pixels, batch 32, on one core: steps of a sandwich of
four (the largest, the smallest, two random ones) through the supernet, beside steps of the largest as an
ordinary network, each in a process of its own.

"tensors" is the peak of the bytes that torch holds, by its profiler: what `torch.cuda.max_memory_allocated`
is on a GPU. "resident" is the peak of the resident set less that after the imports: with glibc's allocator as
it comes, which keeps gaps between blocks of changing sizes and so takes more the more the sizes change, and
with one that maps each block of 256 KiB or more on its own (MALLOC_MMAP_THRESHOLD_ in the environment), which
keeps none and is slower.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import numpy as np
import torch
from record import figure, save
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from search_spaces import mobilenet_v3
from supernets import Supernet
from supernets.losses import soft_targets
from supernets.policies.sandwich import Sandwich
from supernets.step import backward, step_rng

BATCH = 32
STEPS = 4
MEASURES: dict[str, dict[str, str]] = {
    "tensors": {},
    "resident, blocks mapped": {"MALLOC_MMAP_THRESHOLD_": str(2**18)},
    "resident, allocator as it comes": {},
}
BARS = {"tensors": 1.15, "resident, blocks mapped": 1.15}


def train(kind: str) -> None:
    """Makes a network, "supernet" or "largest", and trains it for a few steps."""
    space = mobilenet_v3.space(image_size=96)
    model = Supernet(space) if kind == "supernet" else space.build(space.largest)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x, y = torch.randn(BATCH, 3, 96, 96), torch.zeros(BATCH, dtype=torch.int64)
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        if isinstance(model, Supernet):
            plan = Sandwich(4).plan(space, step_rng(0, step))
            backward(model, plan, x, soft_targets(y, space.classes))
        else:
            F.cross_entropy(model(x), y).backward()
        optimizer.step()


def tensors(kind: str) -> int:
    """The most bytes of tensors that are alive at once while `kind` is made and trained."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        train(kind)
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = np.array([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(changes.cumsum().max())


def resident(kind: str) -> int:
    """By how many bytes the peak of the resident set grows while `kind` is made and trained."""
    before = _peak()
    train(kind)
    return _peak() - before


def _peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def measured(measure: str, kind: str) -> float:
    """MiB that training took in a process of its own."""
    command = [sys.executable, __file__, measure, kind]
    environment = {**os.environ, **MEASURES[measure]}
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return int(answer.stdout) / 2**20


def main() -> None:
    rows = []
    for measure in MEASURES:
        largest, supernet = measured(measure, "largest"), measured(measure, "supernet")
        rows += [
            figure(f"{measure}: training the largest, batch {BATCH}", largest, "MiB"),
            figure(f"{measure}: training the supernet, batch {BATCH}", supernet, "MiB"),
            figure(f"{measure}: supernet over largest", supernet / largest, bar=BARS.get(measure)),
        ]
    save(__file__, rows, ("torch", "timm"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        print(tensors(sys.argv[2]) if sys.argv[1] == "tensors" else resident(sys.argv[2]))
    else:
        main()
