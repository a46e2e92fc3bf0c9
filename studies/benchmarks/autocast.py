"""What bf16 autocast gains in a training step on the CPU, and how it changes the gradient.

    python studies/benchmarks/autocast.py

Writes autocast.csv beside this file. Steps of the largest subnet (forward, backward, SGD with momentum) in
float32 and under bf16 autocast, as `nas train --precision bf16` runs them, on one core; both take turns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from record import figure, save
from timing import interleaved
from torch import Tensor
from torch.nn import functional as F

from search_spaces import SearchSpace, mobilenet_v3, vit
from supernets import Supernet
from supernets.evaluate import channels_last

CASES: dict[str, tuple[SearchSpace, int]] = {
    "vit at 32, batch 64": (vit.space(image_size=32, classes=10), 64),
    "AutoFormer-tiny at 224, batch 4": (vit.space(), 4),
    "mobilenet_v3 at 96, batch 16": (mobilenet_v3.space(image_size=96), 16),
}
PAIRS = 5


def stepper(supernet: Supernet, x: Tensor, dtype: torch.dtype | None) -> Callable[[], None]:
    """One optimiser step of the largest subnet."""
    optimizer = torch.optim.SGD(supernet.parameters(), lr=1e-3, momentum=0.9)
    y = torch.zeros(len(x), dtype=torch.int64)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            logits = supernet(x, supernet.space.largest)
        F.cross_entropy(logits.float(), y).backward()
        optimizer.step()

    return step


def gradient(supernet: Supernet, x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The gradient of one step, as one vector."""
    supernet.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        logits = supernet(x, supernet.space.largest)
    y = torch.arange(len(x)) % supernet.space.classes
    F.cross_entropy(logits.float(), y).backward()
    return torch.cat([p.grad.flatten() for p in supernet.parameters() if p.grad is not None])


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for name, (space, batch) in CASES.items():
        supernet = Supernet(space).train()
        x = channels_last(torch.randn(batch, *space.input_shape(space.largest)))
        full, half = stepper(supernet, x, None), stepper(supernet, x, torch.bfloat16)
        interleaved(full, half, repeats=1)
        exact, rounded = interleaved(full, half, repeats=PAIRS)
        whole, low = gradient(supernet.eval(), x, None), gradient(supernet, x, torch.bfloat16)
        rows += [
            figure(f"{name}: step in float32", [1e3 * t for t in exact], "ms"),
            figure(f"{name}: times faster under bf16", [a / b for a, b in zip(exact, rounded, strict=True)]),
            figure(
                f"{name}: relative difference of the gradients", float((whole - low).norm() / whole.norm())
            ),
        ]
    save(__file__, rows, ("torch", "timm"))


if __name__ == "__main__":
    main()
