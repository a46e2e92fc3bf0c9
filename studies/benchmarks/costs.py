"""What it takes to count the costs of 100,000 archs, and whether the counts equal PyTorch's.

    python studies/benchmarks/costs.py

Writes costs.csv beside this file. The population is of the full MobileNetV3 space (resolutions 128 to 224 in
steps of 4) and is counted on one core. A mismatch is an arch whose multiply-adds or parameters differ from
PyTorch's FLOP counter (which counts a multiply-add as two) or from the parameters of the network.
"""

from __future__ import annotations

from statistics import median

import numpy as np
import torch
from record import figure, save
from timing import interleaved, seconds
from torch.utils.flop_counter import FlopCounterMode

from nas.resolve import names, resolve
from search_spaces import SearchSpace, mobilenet_v3

ARCHS = 100_000
CHECKED = 100  # archs of each space


def mismatches(space: SearchSpace) -> int:
    """Random archs whose costs differ from what PyTorch counts on their networks."""
    population = space.sample(CHECKED, np.random.default_rng(1))
    costs = space.costs(population)
    wrong = 0
    for arch, macs, params in zip(space.archs(population), costs.macs, costs.params, strict=True):
        network = space.skeleton(arch).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(space.example(arch, device="meta"))
        counted = sum(p.numel() for p in network.parameters())
        wrong += 2 * int(macs) != counter.get_total_flops() or int(params) != counted
    return wrong


def main() -> None:
    torch.set_num_threads(1)
    space = mobilenet_v3.space(resolutions=range(128, 225, 4))
    population = space.sample(ARCHS, np.random.default_rng(0))
    rows = [figure("deriving the table of mobilenet_v3, once", seconds(lambda: space.costs(population)), "s")]
    (times,) = interleaved(lambda: space.costs(population), repeats=5)
    rows += [
        figure(f"costs of {ARCHS:,} archs", times, "s", bar=1.0),
        figure("costs per arch", 1e6 * median(times) / ARCHS, "us", bar=10.0),
    ]
    for name in names("space"):
        wrong = mismatches(resolve("space", name)())
        rows.append(figure(f"{name}: mismatches among {CHECKED} archs", wrong, bar=0))
    save(__file__, rows, ("torch", "numpy", "timm"))


if __name__ == "__main__":
    main()
