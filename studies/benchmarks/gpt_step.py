"""What a training step of a language model costs through the supernet, over that of a static network.

    python studies/benchmarks/gpt_step.py           # a few minutes
    python studies/benchmarks/gpt_step.py --smoke   # seconds: whether it runs; writes nothing

Writes gpt_step.csv beside this file. Networks of 8 blocks, 256 tokens, batch 4 and batch 1: the largest and
random ones, whose embedding, heads and FFN widths differ. A step and a ratio are those of train_step.py. A
peer's stateful elastic layers were seen to cost 1.07 to 1.23 at batch 4, and 1.23 to 1.61 at batch 1.
"""

from __future__ import annotations

import sys
from statistics import median

import numpy as np
import torch
from record import figure, save
from train_step import pairs

from search_spaces import SearchSpace, gpt
from supernets import Supernet

RANDOM = 4  # archs beside the largest
BAR = 1.05


def figures(space: SearchSpace, repeats: int, randoms: int) -> list[dict[str, object]]:
    """The rows of both batch sizes."""
    supernet = Supernet(space)
    archs = (space.largest, *space.archs(space.sample(randoms, np.random.default_rng(0))))
    rows = []
    for batch in (4, 1):
        case = f"gpt, {space.largest['depth']} blocks, batch {batch} x {space.settings['context']}"
        times, ratios = [], []
        for arch in archs:
            ours, theirs = pairs(supernet, arch, batch, repeats)
            times.append(1e3 * median(theirs))
            ratios.append(median(a / b for a, b in zip(ours, theirs, strict=True)))
        rows += [
            figure(f"{case}: static step of the largest", times[0], "ms"),
            figure(f"{case}: supernet over static, largest", ratios[0], bar=BAR),
            figure(f"{case}: static step, random archs", times[1:], "ms"),
            figure(f"{case}: supernet over static, random archs", ratios[1:], bar=BAR),
            figure(f"{case}: the highest of these", max(ratios[1:]), bar=BAR),
        ]
    return rows


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if "--smoke" in sys.argv[1:]:
        small = gpt.space(context=16, depths=(2,), embed_dims=(32, 64))
        for row in figures(small, repeats=2, randoms=2):
            print(row["figure"], row["median"])
        return
    space = gpt.space(depths=(8,), embed_dims=(192, 256, 320), heads=(4, 6, 8))
    save(__file__, figures(space, repeats=15, randoms=RANDOM), ("torch",))


if __name__ == "__main__":
    main()
