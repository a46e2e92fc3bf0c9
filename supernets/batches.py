"""What training asks of its data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Batches(Protocol):
    """Labelled images in batches, the same ones for the same epoch in any process."""

    @property
    def steps(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start`, `start + 1`, ... of an epoch: x float32 [B, C, H, W] normalised, y int64 [B].

        What a batch holds depends on (the data's seed, `epoch`, its number) only; `start` skips cheaply.
        """
