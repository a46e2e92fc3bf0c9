"""What it takes to draw, change and encode 100,000 archs of the full MobileNetV3 space.

    python studies/benchmarks/population.py

Writes population.csv beside this file. One core; seconds for the whole population.
"""

from __future__ import annotations

import numpy as np
from record import figure, save
from timing import interleaved

from search_spaces import mobilenet_v3

ARCHS = 100_000
REPEATS = 9


def main() -> None:
    space = mobilenet_v3.space(resolutions=range(128, 225, 4))
    rng = np.random.default_rng(0)
    a, b = space.sample(ARCHS, rng), space.sample(ARCHS, rng)
    names = ("sample", "canonical", "one_hot", "mutate", "crossover")
    times = interleaved(
        lambda: space.sample(ARCHS, rng),
        lambda: space.canonical(a, rng),
        lambda: space.one_hot(a),
        lambda: space.mutate(a, rng),
        lambda: space.crossover(a, b, rng),
        repeats=REPEATS,
    )
    together = [sum(steps) for steps in zip(*times[:3], strict=True)]
    rows = [figure(f"{name} {ARCHS:,} archs", taken, "s") for name, taken in zip(names, times, strict=True)]
    rows.append(figure("sample, canonical and one_hot together", together, "s", bar=1.0))
    save(__file__, rows, ("numpy",))


if __name__ == "__main__":
    main()
