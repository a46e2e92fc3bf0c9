"""What a training step through a supernet costs over the same step of the same arch as a static network.

    python studies/benchmarks/train_step.py

Writes train_step.csv beside this file. A step is forward, backward and SGD with momentum on random data, on
one core; through the supernet it also draws the subnet, as training does, and steps the shared weights. Both
kinds take turns; a ratio is the median over the pairs of one arch. Archs are the largest and random ones.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from record import figure, save
from timing import interleaved
from torch import nn
from torch.nn import functional as F

from search_spaces import Arch, SearchSpace, mobilenet_v3, vit
from supernets import Supernet

RANDOM = 3  # archs of each space beside the largest
CASES: dict[str, tuple[SearchSpace, int, int]] = {  # space, batch, pairs per arch
    "mobilenet_v3 at 96": (mobilenet_v3.space(image_size=96), 16, 5),
    "vit at 32": (vit.space(image_size=32, classes=10), 16, 15),
    "AutoFormer-tiny at 224": (vit.space(), 2, 5),
}


def stepper(draw: Callable[[], nn.Module], parameters: Any, shape: tuple[int, ...]) -> Callable[[], None]:
    """One training step of the module that `draw` gives, on a random batch of `shape`."""
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    x, y = torch.randn(shape), torch.zeros(shape[0], dtype=torch.int64)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(draw()(x), y).backward()
        optimizer.step()

    return step


def pairs(supernet: Supernet, arch: Arch, batch: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds through the supernet and of the static network."""
    shape = (batch, *supernet.space.input_shape(arch))
    static = supernet.extract(arch).train()
    shared = stepper(lambda: supernet.subnet(arch), supernet.parameters(), shape)
    alone = stepper(lambda: static, static.parameters(), shape)
    interleaved(shared, alone, repeats=2)  # warm caches and momentum
    ours, theirs = interleaved(shared, alone, repeats=repeats)
    return ours, theirs


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for case, (space, batch, repeats) in CASES.items():
        supernet = Supernet(space)
        randoms = space.archs(space.sample(RANDOM, np.random.default_rng(0)))
        ratios, times = [], []
        for arch in (space.largest, *randoms):
            ours, theirs = pairs(supernet, arch, batch, repeats)
            ratios.append(median(a / b for a, b in zip(ours, theirs, strict=True)))
            times.append(1e3 * median(theirs))
        rows += [
            figure(f"{case}, batch {batch}: static step of the largest", times[0], "ms"),
            figure(f"{case}, batch {batch}: supernet over static, largest", ratios[0], bar=1.10),
            figure(f"{case}, batch {batch}: static step, random archs", times[1:], "ms"),
            figure(f"{case}, batch {batch}: supernet over static, random archs", ratios[1:], bar=1.10),
            figure(f"{case}, batch {batch}: the highest of these", max(ratios[1:]), bar=1.10),
        ]
    save(__file__, rows, ("torch", "timm"))


if __name__ == "__main__":
    main()
