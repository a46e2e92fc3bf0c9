"""What training asks of its data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from supernets.distributed import Ranks


class Batches(Protocol):
    """Labelled images in batches, the same ones for the same epoch in any process."""

    @property
    def steps(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start`, `start + 1`, ... of an epoch: x float32 [B, C, H, W] normalised, y int64 [B].

        What a batch holds depends on (the data's seed, `epoch`, its number) only; `start` skips cheaply.
        """


class Shard(NamedTuple):
    """One rank's part of a batch: images `first`, `first + 1`, ... of the `total` that all ranks have."""

    x: Tensor
    y: Tensor
    first: int
    total: int


@runtime_checkable
class Sharded(Protocol):
    """Batches of which a rank can have its part without the work for the rest."""

    def shards(self, epoch: int, start: int, ranks: Ranks) -> Iterator[Shard]:
        """As `Batches.epoch`, the part of `ranks.share`: put together, the parts are the batch."""


def shards(data: Batches, epoch: int, start: int, ranks: Ranks) -> Iterator[Shard]:
    """This rank's part of each batch from `start` on. All ranks go through the same batches."""
    if ranks.size > 1 and isinstance(data, Sharded):
        yield from data.shards(epoch, start, ranks)
        return
    for x, y in data.epoch(epoch, start):
        begin, end = ranks.share(len(y))
        yield Shard(x[begin:end], y[begin:end], begin, len(y))
