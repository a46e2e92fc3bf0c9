"""A training step of Once-for-All's supernet over the same step with stateful elastic layers, as published.

    python studies/benchmarks/ofa_step.py

Writes ofa_step.csv beside this file. MobileNetV3 of width 1.0, batch 32 at 128 pixels, 1 and 4 random
subnets per step, cross-entropy and SGD with momentum, on one core. Ours draws plain modules over views and
lays images out with channels innermost; the other (`stateful_ofa.py`) slices and copies weights in every
pass, NCHW. Both are checked to compute the same network. They take turns; a ratio is the median over pairs.
"""

from __future__ import annotations

import argparse

import torch
from published import compare
from record import save
from stateful_ofa import StatefulMobileNetV3

from search_spaces import mobilenet_v3
from supernets import Supernet
from supernets.schemes import KernelTransform


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = mobilenet_v3.space(image_size=128, resolutions=(128,))
    supernet = Supernet(space, KernelTransform())
    plans = {
        f"{count} random": lambda rng, count=count: space.archs(space.sample(count, rng)) for count in (1, 4)
    }
    x = torch.randn(given.batch, 3, 128, 128)
    rows = compare(supernet, StatefulMobileNetV3(supernet), x, plans, given.repeats, bar=1 / 1.4)
    save(__file__, rows, ("torch", "timm"))


if __name__ == "__main__":
    main()
