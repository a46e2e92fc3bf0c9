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
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import Arch, SearchSpace, mobilenet_v3, vit
from supernets import Supernet

RANDOM = 3  # archs of each space beside the largest
CASES: dict[str, tuple[SearchSpace, int, int]] = {  # space, batch, pairs per arch
    "mobilenet_v3 at 96": (mobilenet_v3.space(image_size=96), 16, 5),
    "vit at 32": (vit.space(image_size=32, classes=10), 16, 15),
    "AutoFormer-tiny at 224": (vit.space(), 2, 5),
}


def stepper(draw: Callable[[], nn.Module], parameters: Any, x: Tensor, y: Tensor) -> Callable[[], None]:
    """One training step of the module that `draw` gives, on x [B, ...] and classes y, one for each score."""
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(draw()(x).flatten(0, -2), y.flatten()).backward()
        optimizer.step()

    return step


def random_batch(space: SearchSpace, arch: Arch, batch: int) -> tuple[Tensor, Tensor]:
    """Noise with the class 0, or random tokens with random ones to follow."""
    shape = (batch, *space.input_shape(arch))
    if space.input_dtype.is_floating_point:
        return torch.randn(shape), torch.zeros(batch, dtype=torch.int64)
    return torch.randint(space.classes, shape), torch.randint(space.classes, shape)


def pairs(supernet: Supernet, arch: Arch, batch: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds through the supernet and of the static network."""
    x, y = random_batch(supernet.space, arch, batch)
    static = supernet.extract(arch).train()
    shared = stepper(lambda: supernet.subnet(arch), supernet.parameters(), x, y)
    alone = stepper(lambda: static, static.parameters(), x, y)
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
