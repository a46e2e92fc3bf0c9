"""Windows of a text in batches: at random places for training, one after the other for scoring.

Letters of the shapes: B windows of T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas.data.seeds import ORDER, stream
from nas.data.splits import Indices


def windows(text: Tensor, starts: Indices, context: int) -> tuple[Tensor, Tensor]:
    """(x, y) int64 [B, T] each: the `context` bytes from each start on, and the bytes that follow them."""
    at = torch.from_numpy(starts)[:, None] + torch.arange(context + 1)
    tokens = text[at].long()
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


@dataclass(frozen=True, eq=False)
class TextBatches:
    """Training batches: where a batch's windows lie depends on (seed, epoch, its number) only.

    An epoch draws as many tokens as the text has, so each is seen once on average.
    """

    text: Tensor  # uint8 [N], of the training split
    context: int
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return max(1, len(self.text) // (self.batch_size * self.context))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y) int64 [B, T] each, from batch `start` on. The batches before it cost nothing."""
        for number in range(start, self.steps):
            rng = stream(ORDER, self.seed, epoch, number)
            yield windows(
                self.text, rng.integers(0, len(self.text) - self.context, self.batch_size), self.context
            )


@dataclass(frozen=True, eq=False)
class TextPass:
    """All windows of a split side by side, each token predicted once; what fills no window is left out."""

    text: Tensor  # uint8 [N]
    context: int
    batch_size: int

    @property
    def count(self) -> int:
        """Tokens that are predicted in a pass."""
        return self._windows * self.context

    @property
    def steps(self) -> int:
        """Batches in a pass; the last may be smaller."""
        return -(-self._windows // self.batch_size)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        starts = np.arange(self._windows, dtype=np.int64) * self.context
        for first in range(0, len(starts), self.batch_size):
            yield windows(self.text, starts[first : first + self.batch_size], self.context)

    @property
    def _windows(self) -> int:
        return (len(self.text) - 1) // self.context
