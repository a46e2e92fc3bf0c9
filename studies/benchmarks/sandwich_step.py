"""What a training step with a sandwich of 4 costs over the same four networks trained as static ones.

    python studies/benchmarks/sandwich_step.py
    python studies/benchmarks/sandwich_step.py --smoke      # seconds, to see that it runs; writes nothing

Writes sandwich_step.csv beside this file. Ours is one step: four subnets drawn, run with the labels' loss,
their gradients summed, one step of SGD on the shared weights. Theirs is the sum of four: each extracted
network runs on the same batch and steps its own weights. Both take turns; a figure is the median over pairs
of the ratio of one to the other. Random data, one core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from record import figure, save
from timing import interleaved
from torch.nn import functional as F

from search_spaces import SearchSpace, mobilenet_v3, vit
from supernets import Supernet
from supernets.evaluate import channels_last
from supernets.losses import soft_targets
from supernets.plan import StepPlan
from supernets.policies.sandwich import Sandwich
from supernets.step import backward

DRAWS = 3  # sandwiches, each with other random archs
CASES: dict[str, tuple[Callable[[], SearchSpace], int, int]] = {  # space, batch, pairs per sandwich
    "mobilenet_v3 at 96": (partial(mobilenet_v3.space, image_size=96), 16, 7),
    "vit at 32": (partial(vit.space, image_size=32, classes=10), 32, 15),
}
SMOKE: dict[str, tuple[Callable[[], SearchSpace], int, int]] = {
    "mobilenet_v3 at 32": (partial(mobilenet_v3.space, image_size=32, classes=10), 8, 3),
    "vit at 16": (partial(vit.space, image_size=16, classes=10), 8, 3),
}


def sgd(parameters: object) -> torch.optim.Optimizer:
    """The optimiser of both."""
    return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)  # type: ignore[arg-type]


def ours(supernet: Supernet, plan: StepPlan, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One step of the shared weights."""
    optimizer = sgd(supernet.parameters())
    targets = soft_targets(y, supernet.space.classes)
    supernet.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward(supernet, plan, x, targets)
        optimizer.step()

    return step


def theirs(supernet: Supernet, plan: StepPlan, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One step of each extracted network."""
    modules = [supernet.extract(arch).train() for arch in plan.archs]
    optimizers = [sgd(module.parameters()) for module in modules]

    def steps() -> None:
        for module, optimizer in zip(modules, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(module(x), y).backward()
            optimizer.step()

    return steps


def main(smoke: bool) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for case, (make, batch, repeats) in (SMOKE if smoke else CASES).items():
        space = make()
        size = space.image_size
        if any(choice.name == "resolution" for choice in space.choices):
            space = space.restrict({"resolution": (size,)})  # the step, not the resizing of images
        x = channels_last(torch.randn(batch, space.channels, size, size))
        y = torch.randint(0, space.classes, (batch,))
        ratios, times = [], []
        for seed in range(1 if smoke else DRAWS):
            supernet = Supernet(space)
            plan = Sandwich(4, distill=False).plan(space, np.random.default_rng(seed))
            mine, static = ours(supernet, plan, x, y), theirs(supernet, plan, x, y)
            interleaved(mine, static, repeats=2)  # warm caches, skeletons and momentum
            taken = interleaved(mine, static, repeats=repeats)
            ratios += [a / b for a, b in zip(*taken, strict=True)]
            times.append(1e3 * median(taken[1]))
        rows += [
            figure(f"{case}, batch {batch}: four static steps", times, "ms"),
            figure(f"{case}, batch {batch}: sandwich of 4 over four static steps", ratios, bar=1.05),
        ]
    save(__file__, rows, ("torch", "timm"), keep=not smoke)


if __name__ == "__main__":
    main("--smoke" in sys.argv[1:])
