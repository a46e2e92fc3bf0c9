"""How many threads a network of this size is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from search_spaces import SearchSpace

# Multiply-adds of one forward pass of a batch below which splitting the work costs more than it saves: on two
# cores, mobilenet_v3 at 16 pixels trained three times slower with two threads, at 32 pixels 1.3 times faster.
SMALL_MACS = 0.5e9


@contextmanager
def suitable_threads(space: SearchSpace, batch: int) -> Iterator[int]:
    """Within it torch uses one thread for a space whose largest network is small, else as many as before."""
    before = torch.get_num_threads()
    macs = sum(layer.macs for layer in space.layers(space.largest)) * batch
    torch.set_num_threads(1 if macs < SMALL_MACS else before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
