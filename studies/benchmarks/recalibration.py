"""What recalibrating batch norm costs over a forward pass in train mode over the same batches.

    python studies/benchmarks/recalibration.py
    python studies/benchmarks/recalibration.py --smoke      # seconds, to see that it runs; writes nothing

Writes recalibration.csv beside this file. The pass is the least that any method must do: it computes the
batch statistics on the way, without gradients. Both take turns; a figure is the median over pairs of the
ratio of one to the other. Random images, one core, the largest and a random subnet.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from record import figure, save
from timing import interleaved
from torch import nn

from search_spaces import mobilenet_v3
from supernets import Supernet
from supernets.evaluate import channels_last, recalibrate


def forward(module: nn.Module, batches: list[torch.Tensor]) -> None:
    """A pass in train mode."""
    module.train()
    with torch.inference_mode():
        for x in batches:
            module(channels_last(x))


def main(smoke: bool) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size, images, repeats = (32, 16, 5) if smoke else (96, 64, 15)
    supernet = Supernet(mobilenet_v3.space(image_size=size))
    space = supernet.space
    batches = [torch.randn(images, 3, size, size) for _ in range(4)]
    rows = []
    for name, arch in (
        ("largest", space.largest),
        ("random", space.archs(space.sample(1, np.random.default_rng(0)))[0]),
    ):
        module, other = supernet.extract(arch), supernet.extract(arch)
        x = [batch[:, :, : space.input_shape(arch)[1], : space.input_shape(arch)[2]] for batch in batches]
        interleaved(lambda m=module, x=x: recalibrate(m, x), lambda m=other, x=x: forward(m, x), repeats=2)  # type: ignore[misc]
        mine, plain = interleaved(
            lambda m=module, x=x: recalibrate(m, x),  # type: ignore[misc]
            lambda m=other, x=x: forward(m, x),  # type: ignore[misc]
            repeats=repeats,
        )
        what = f"mobilenet_v3 at {size}, {name}, {len(x)} batches of {images}"
        rows += [
            figure(f"{what}: forward in train mode", [1e3 * t for t in plain], "ms"),
            figure(
                f"{what}: recalibration over it", [a / b for a, b in zip(mine, plain, strict=True)], bar=1.05
            ),
        ]
    save(__file__, rows, ("torch", "timm"), keep=not smoke)


if __name__ == "__main__":
    main("--smoke" in sys.argv[1:])
