"""The memory that training a supernet takes over training its largest subnet alone.

    python studies/benchmarks/memory.py

Writes memory.csv beside this file. MobileNetV3 at 96 pixels, batch 32, on one core: steps of a sandwich of
four (the largest, the smallest, two random ones) through the supernet, beside steps of the largest as an
ordinary network, each in a process of its own. Memory is the peak of the resident set less that after the
imports, with glibc's allocator as it comes, and with one that maps every block of 256 KiB or more on its own:
the first keeps gaps between blocks of changing sizes, the second shows what the tensors themselves take.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from record import figure, save

BATCH = 32
STEPS = 4
ALLOCATORS: dict[str, dict[str, str]] = {
    "allocator as it comes": {},
    "blocks mapped": {"MALLOC_MMAP_THRESHOLD_": str(2**18)},
}


def train(kind: str) -> int:
    """Bytes that training took in this process: `kind` is "supernet" or "largest"."""
    import torch
    from torch.nn import functional as F

    from search_spaces import mobilenet_v3
    from supernets import Supernet
    from supernets.losses import soft_targets
    from supernets.policies.sandwich import Sandwich
    from supernets.step import backward, step_rng

    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = _peak()
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
    return _peak() - before


def _peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def measured(kind: str, allocator: dict[str, str]) -> float:
    """MiB that training took in a process of its own."""
    command = [sys.executable, __file__, kind]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **allocator}
    )
    return int(answer.stdout) / 2**20


def main() -> None:
    rows = []
    for name, allocator in ALLOCATORS.items():
        largest, supernet = measured("largest", allocator), measured("supernet", allocator)
        rows += [
            figure(f"{name}: training the largest, batch {BATCH}", largest, "MiB"),
            figure(f"{name}: training the supernet, batch {BATCH}", supernet, "MiB"),
            figure(f"{name}: supernet over largest", supernet / largest, bar=1.15),
        ]
    save(__file__, rows, ("torch", "timm"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(train(sys.argv[1]))
    else:
        main()
