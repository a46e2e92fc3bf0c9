"""Batches in an order that can be repeated from any point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas.data.augment import BatchAugmentation, PictureAugmentation
from nas.data.seeds import AUGMENT, ORDER, stream, torch_stream
from nas.data.splits import Indices
from nas.data.store import Store
from supernets.batches import Shard
from supernets.distributed import ALONE, Ranks

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Normalisation:
    """(x / divisor - mean) / std, per channel: what a network sees of stored values x."""

    divisor: float  # 255 for uint8 images, 1 for float32 ones
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] of any type as normalised float32."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return ((images.float() / self.divisor - mean) / std).contiguous()


@dataclass(frozen=True, eq=False)
class TrainBatches:
    """Shuffled training batches: the order depends on (seed, epoch), the changes on (seed, epoch, batch).

    An incomplete last batch is dropped, unless it is the only one. Safe to iterate several times at once.
    """

    store: Store
    labels: Tensor  # int64, of the whole store
    indices: Indices  # of the training split
    batch_size: int
    seed: int
    normalise: Normalisation
    augmentation: BatchAugmentation | PictureAugmentation | None
    device: torch.device = CPU  # where whole batches are changed and normalised; draws do not depend on it

    @property
    def threaded(self) -> bool:
        """Whether another thread may read ahead: not where pictures are changed in this process.

        Their transforms draw from the global generators, which the training seeds too.
        """
        return not isinstance(self.augmentation, PictureAugmentation) or self.store.workers > 0

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return max(1, len(self.indices) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(x float32 [B, C, H, W] normalised, y int64 [B]) of one epoch, from batch `start` on.

        The batches before `start` cost nothing.
        """
        return ((part.x, part.y) for part in self.shards(epoch, start, ALONE) if len(part.y))

    def shards(self, epoch: int, start: int, ranks: Ranks) -> Iterator[Shard]:
        """The part of each batch that is this rank's, read and changed without the rest, as in `epoch`."""
        order = stream(ORDER, self.seed, epoch).permutation(self.indices)
        batches = in_batches(order, self.batch_size)[start : self.steps]
        if not batches:
            return
        mine = [batch[slice(*ranks.share(len(batch)))] for batch in batches]
        if isinstance(self.augmentation, PictureAugmentation):
            read = self.store.read_changed(mine, self.augmentation, (self.seed, epoch))
        else:
            read = self.store.read(mine)
        for number, (images, index) in enumerate(read, start):
            total = len(batches[number - start])
            first, _ = ranks.share(total)
            images, labels = self._moved(images), self._moved(self.labels[index])
            if isinstance(self.augmentation, BatchAugmentation):
                rng = torch_stream(AUGMENT, self.seed, epoch, number)
                images = self.augmentation(images, rng, first, total)
            yield Shard(self.normalise(images), labels, first, total)

    def _moved(self, tensor: Tensor) -> Tensor:
        """On the device, from pinned memory, so that the copy does not wait for what runs there."""
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class FixedBatches:
    """Every image of a split in a fixed order, unchanged; can be iterated any number of times."""

    store: Store
    labels: Tensor
    indices: Indices
    batch_size: int
    normalise: Normalisation

    @property
    def count(self) -> int:
        """Images in a pass."""
        return len(self.indices)

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    @property
    def steps(self) -> int:
        """Batches in a pass; the last may be smaller."""
        return len(self)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, index in self.store.read(in_batches(self.indices, self.batch_size)):
            if len(index):
                yield self.normalise(images), self.labels[index]


def in_batches(indices: Indices, batch_size: int) -> list[Indices]:
    """`indices` in pieces of `batch_size`, the last as it comes."""
    return [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]


def statistics(store: Store, indices: Indices, divisor: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of the given images per channel, on the scale of x / divisor; a std of 0 becomes 1."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for images, _ in store.read(in_batches(indices, 256)):
        # uint8 images add up exactly in float64, so the result does not depend on the batches or the store.
        values = images.double()
        count += values.numel() // values.shape[1]
        total = total + values.sum((0, 2, 3)).numpy()
        squares = squares + values.square().sum((0, 2, 3)).numpy()
    mean = total / count / divisor
    std = np.sqrt(np.maximum(squares / count / divisor**2 - mean**2, 0))
    std = np.where(std < 1e-6, 1.0, std)
    return tuple(round(float(m), 6) for m in mean), tuple(round(float(s), 6) for s in std)
