"""A training step of AutoFormer's supernet over the same step with stateful elastic layers, as published.

    python studies/benchmarks/autoformer_step.py

Writes autoformer_step.csv beside this file. The `vit` space in AutoFormer-tiny's shape (12 to 14 blocks,
192 to 240 wide, relative positions on keys and values), batch 16 at 224 pixels and batch 2, one random subnet
and a sandwich of four per step, cross-entropy and SGD with momentum, on one core. Ours draws plain modules
over views and keeps relative positions as sums over rows and columns; the other (`stateful_autoformer.py`)
gathers them for all pairs in every pass. Both are checked to compute the same network. They take turns; a
ratio is the median over pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from published import compare
from record import save
from stateful_autoformer import StatefulAutoFormer

from search_spaces import Arch, vit
from supernets import Supernet


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--batches", type=int, nargs="+", default=[16, 2])
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = vit.space(relative_positions=True)

    def one(rng: np.random.Generator) -> Sequence[Arch]:
        return space.archs(space.sample(1, rng))

    def sandwich(rng: np.random.Generator) -> Sequence[Arch]:
        return [space.largest, space.smallest, *space.archs(space.sample(2, rng))]

    rows = []
    for batch in given.batches:
        supernet = Supernet(space)  # anew: steps of the last batch size have moved both apart
        stateful = StatefulAutoFormer(supernet)
        plans = {f"batch {batch}, one random": one, f"batch {batch}, sandwich of four": sandwich}
        rows += compare(supernet, stateful, torch.randn(batch, 3, 224, 224), plans, given.repeats, bar=0.65)
    save(__file__, rows, ("torch", "timm"))


if __name__ == "__main__":
    main()
