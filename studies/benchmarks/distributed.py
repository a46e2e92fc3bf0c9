"""What a training step costs on two ranks over one process with the same share of images.

    python studies/benchmarks/distributed.py
    python studies/benchmarks/distributed.py --smoke        # seconds, to see that it runs; writes nothing

Writes distributed.csv beside this file. Two processes on this machine, connected by gloo, one thread each, on
half a batch each; then one process alone on half a batch, which is the least that the step can take, and on
the whole batch. Needs two free cores: on a busy machine the figures say nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from record import figure, save
from timing import seconds

from search_spaces import vit
from supernets import Supernet
from supernets.batches import Shard
from supernets.distributed import Ranks, joined
from supernets.policies.sandwich import Sandwich
from supernets.recipe import Phase
from supernets.step import Learner, train_step

BATCH, STEPS = 64, 25


def measure(ranks: Ranks, batch: int, steps: int) -> list[float]:
    """Seconds of each step, without the first three."""
    torch.set_num_threads(1)
    supernet = Supernet(vit.space(image_size=32, classes=10))
    policy = Sandwich(4)
    learner = Learner(
        supernet=supernet,
        phase=Phase(name="p", epochs=1, policy=policy),
        policy=policy,
        space=supernet.space,
        optimizer=torch.optim.SGD(supernet.parameters(), lr=1e-4, momentum=0.9),
        set_rate=lambda _: 1e-4,
        ema=None,
        dtype=None,
        scaler=None,
        channels_last=True,
        teacher=None,
        ranks=ranks,
    )
    begin, end = ranks.share(batch)
    shard = Shard(
        torch.randn(end - begin, 3, 32, 32), torch.zeros(end - begin, dtype=torch.int64), begin, batch
    )
    taken = []
    for step in range(steps + 3):
        plan = policy.plan(supernet.space, np.random.default_rng(step))
        taken.append(
            seconds(partial(train_step, learner, [plan], [shard], share=1.0, seed=0, step=step, updates=step))
        )
    return list(islice(taken, 3, None))


def two_ranks(steps: int) -> list[float]:
    """The first rank's times."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(__file__, "--rank", str(out), str(steps)),
        ]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return [float(line) for line in out.read_text().split()]


def main(smoke: bool) -> None:
    steps = 3 if smoke else STEPS
    both = two_ranks(steps)
    half, whole = measure(Ranks(), BATCH // 2, steps), measure(Ranks(), BATCH, steps)
    rows = [
        figure(f"vit at 32, sandwich of 4: one process, {BATCH} images", [1e3 * t for t in whole], "ms"),
        figure(f"one process, {BATCH // 2} images", [1e3 * t for t in half], "ms"),
        figure(f"two ranks, {BATCH // 2} images each", [1e3 * t for t in both], "ms"),
        figure("two ranks over one process with half the images", [t / median(half) for t in both]),
        figure("one process with all images over two ranks", median(whole) / median(both)),
    ]
    save(__file__, rows, ("torch", "timm"), keep=not smoke)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        with joined() as these:
            times = measure(these, BATCH, int(sys.argv[3]))
            if these.first:
                Path(sys.argv[2]).write_text("\n".join(map(str, times)))
    else:
        main("--smoke" in sys.argv[1:])
