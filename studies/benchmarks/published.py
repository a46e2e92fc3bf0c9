"""Comparing a supernet's training step with the same step of a network with stateful layers, as published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from record import figure
from timing import interleaved
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import Arch
from supernets import Supernet
from supernets.evaluate import channels_last

DRAWS = 3  # sets of archs per row


def check(supernet: Supernet, stateful: Any, arch: Arch, x: Tensor) -> None:
    """Returns when both give the same logits in eval mode.

    Raises:
        AssertionError: they differ, so that a comparison would be of two different networks.
    """
    stateful.activate(arch)
    with torch.no_grad():
        ours, theirs = supernet.subnet(arch).eval()(x), stateful.eval()(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    stateful.train()


def stepper(model: nn.Module, run: Callable[[Arch], Tensor], archs: Sequence[Arch]) -> Callable[[], None]:
    """One optimiser step over the summed gradients of the archs."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for arch in archs:
            logits = run(arch)
            F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)).backward()
        optimizer.step()

    return step


def compare(
    supernet: Supernet,
    stateful: Any,
    x: Tensor,
    plans: dict[str, Callable[[np.random.Generator], Sequence[Arch]]],
    repeats: int,
    bar: float,
) -> list[dict[str, Any]]:
    """Rows for each plan, which draws the archs of a step: our time, and the ratios of ours to theirs."""
    space, rng = supernet.space, np.random.default_rng(0)
    check(supernet, stateful, space.archs(space.sample(1, rng))[0], x[:2])
    inner = channels_last(x)

    def theirs(arch: Arch) -> Tensor:
        stateful.activate(arch)
        return stateful(x)

    rows = []
    for name, plan in plans.items():
        ratios, times = [], []
        for _ in range(DRAWS):
            archs = plan(rng)
            one = stepper(supernet.train(), lambda arch: supernet.subnet(arch)(inner), archs)
            other = stepper(stateful.train(), theirs, archs)
            interleaved(one, other, repeats=1)  # warm caches and momentum
            mine, published = interleaved(one, other, repeats=repeats)
            ratios += [a / b for a, b in zip(mine, published, strict=True)]
            times.append(1e3 * median(mine))
        rows += [
            figure(f"our step, {name}", times, "ms"),
            figure(f"ours over theirs, {name}", ratios, bar=bar),
            figure(f"times faster, {name}", [1 / ratio for ratio in ratios]),
        ]
    return rows
