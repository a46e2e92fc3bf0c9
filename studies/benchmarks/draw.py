"""What it takes to draw a subnet that was never drawn before, beside the other ways to get its network.

    python studies/benchmarks/draw.py

Writes draw.csv beside this file. Random archs of the full MobileNetV3 space (resolutions 128 to 224 in steps
of 4), one core, milliseconds per arch. The alternatives are a `copy.deepcopy` of the largest network, which
is what a supernet that cuts its subnets out of a copy pays, and the plain construction of the arch, whose
values are then still random.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from record import figure, save
from timing import seconds

from search_spaces import mobilenet_v3
from supernets import Supernet

ARCHS = 400
ALTERNATIVES = 20  # how often the slow ways are timed


def main() -> None:
    torch.set_num_threads(1)
    space = mobilenet_v3.space(resolutions=range(128, 225, 4))
    supernet = Supernet(space)
    largest = supernet.extract(space.largest)
    archs = space.archs(space.sample(2 * ARCHS, np.random.default_rng(0)))
    names = ("subnet", "extract", "subnet again", "copy.deepcopy of the largest", "plain construction")
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(-10, ARCHS):  # the first ones fill caches
        first, second = archs[2 * i], archs[2 * i + 1]
        row = {
            "subnet": seconds(lambda: supernet.subnet(first)),  # noqa: B023  (called before `first` moves on)
            "extract": seconds(lambda: supernet.extract(second)),  # noqa: B023
            "subnet again": seconds(lambda: supernet.subnet(space.largest)),
        }
        if i % (ARCHS // ALTERNATIVES) == 0:
            row["copy.deepcopy of the largest"] = seconds(lambda: copy.deepcopy(largest))
            row["plain construction"] = seconds(lambda: space.build(first))  # noqa: B023
        for name, taken in row.items():
            if i >= 0:
                times[name].append(1e3 * taken)
    bars = {"subnet": 8.0, "extract": 20.0}
    rows = [figure(name, taken, "ms", bar=bars.get(name)) for name, taken in times.items()]
    save(__file__, rows, ("torch", "timm"))


if __name__ == "__main__":
    main()
