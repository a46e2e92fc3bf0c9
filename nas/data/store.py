"""Where the pixels are: decoded once into memory, or decoded from their files at every use."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.data.pictures import BadImage, Pictures, fit, to_picture
from nas.data.report import Skipped, check_skipped
from nas.data.seeds import PICTURE, global_streams
from nas.data.splits import Indices

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]  # pixels [B, C, H, W], positions in the store [B]
Transform = Callable[[Image.Image], Tensor]


class Store(Protocol):
    """Images of one size, numbered from 0."""

    @property
    def workers(self) -> int:
        """Processes that read; 0: this one reads."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether reading an image costs no decoding."""
        ...

    @property
    def channels(self) -> int:
        """Channels of every image."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def read(self, batches: Sequence[Indices]) -> Iterator[Batch]:
        """The images of each batch as they are stored; one that turns out damaged is left out.

        A batch for each that is asked for, also where nothing is left of it.
        """
        ...

    def read_changed(
        self, batches: Sequence[Indices], transform: Transform, position: tuple[int, ...]
    ) -> Iterator[Batch]:
        """As `read`, each picture changed by `transform`, which may draw from the global random generators.

        They are seeded per picture from `position` and the picture's number, and left as they were found.
        """
        ...


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """Images [N, C, H, W], uint8 or float32, in memory."""

    images: Tensor
    workers: int = 0  # processes for read_changed; reading as stored needs none
    in_memory: bool = True

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, batches: Sequence[Indices]) -> Iterator[Batch]:
        for batch in batches:
            index = torch.from_numpy(batch)
            yield self.images[index], index

    def read_changed(
        self, batches: Sequence[Indices], transform: Transform, position: tuple[int, ...]
    ) -> Iterator[Batch]:
        for pixels, index, _ in _load(_Decoded(self.images), transform, position, batches, self.workers):
            yield pixels, index


@dataclass(frozen=True, eq=False)
class FileStore:
    """Pictures decoded when read, by `workers` processes (0: in this one)."""

    pictures: Pictures
    size: int
    crop: float
    channels: int
    where: str  # names the collection in errors
    workers: int = 0
    in_memory: bool = False
    late: dict[int, Skipped] = field(
        default_factory=dict
    )  # damage that no header showed, found while reading

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, batches: Sequence[Indices]) -> Iterator[Batch]:
        fitted = partial(fit, size=self.size, crop=self.crop, channels=self.channels)
        return self._noting_damage(_load(self.pictures, fitted, None, batches, self.workers))

    def read_changed(
        self, batches: Sequence[Indices], transform: Transform, position: tuple[int, ...]
    ) -> Iterator[Batch]:
        return self._noting_damage(_load(self.pictures, transform, position, batches, self.workers))

    def _noting_damage(self, loaded: Iterable[_Loaded]) -> Iterator[Batch]:
        for pixels, index, failures in loaded:
            for number, reason in failures:
                if number not in self.late:
                    self.late[number] = Skipped(self.pictures.name(number), reason)
                    log.warning("skipped %s: %s", self.late[number].name, reason)
                    check_skipped(list(self.late.values()), len(self), self.where)
            whole = pixels if len(index) else torch.empty(0, self.channels, self.size, self.size)
            yield whole, index


@dataclass(frozen=True, eq=False)
class Chosen:
    """The pictures at some positions of others."""

    pictures: Pictures
    positions: Indices
    threads: bool = False

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Image.Image:
        return self.pictures[int(self.positions[index])]

    def check(self, index: int) -> None:
        self.pictures.check(int(self.positions[index]))

    def name(self, index: int) -> str:
        return self.pictures.name(int(self.positions[index]))


def decode_all(
    pictures: Pictures, size: int, crop: float, channels: int
) -> tuple[Tensor, Indices, list[Skipped]]:
    """(images uint8 [n, C, size, size], positions of those n, what was skipped) of all pictures."""
    images = torch.empty(len(pictures), channels, size, size, dtype=torch.uint8)

    def put(index: int) -> None:
        images[index] = fit(pictures[index], size, crop, channels)

    kept, skipped = _try_all(pictures, put)
    return images if not skipped else images[torch.from_numpy(kept)], kept, skipped


def check_all(pictures: Pictures) -> tuple[Indices, list[Skipped]]:
    """(positions of the pictures that look whole, the others), without decoding every one."""
    return _try_all(pictures, pictures.check)


def _try_all(pictures: Pictures, action: Callable[[int], None]) -> tuple[Indices, list[Skipped]]:
    def attempt(index: int) -> str | None:
        try:
            action(index)
        except BadImage as bad:
            return str(bad)
        return None

    if pictures.threads:
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            # In blocks: the pool would otherwise queue a million tasks, and an interrupt would wait for them.
            reasons = [
                reason
                for start in range(0, len(pictures), 1024)
                for reason in pool.map(attempt, range(start, min(start + 1024, len(pictures))))
            ]
    else:
        reasons = [attempt(index) for index in range(len(pictures))]
    skipped = [Skipped(pictures.name(i), reason) for i, reason in enumerate(reasons) if reason is not None]
    return np.array([i for i, reason in enumerate(reasons) if reason is None], np.int64), skipped


_Item = tuple[int, Tensor | str]
_Loaded = tuple[Tensor, Tensor, list[tuple[int, str]]]


def _load(
    pictures: Any,
    transform: Transform,
    position: tuple[int, ...] | None,
    batches: Sequence[Indices],
    workers: int,
) -> Iterator[_Loaded]:
    loader: DataLoader[_Item] = DataLoader(
        _Reader(pictures, transform, position),
        batch_sampler=[batch.tolist() for batch in batches],
        collate_fn=_collate,
        num_workers=min(workers, len(batches)),
        generator=torch.Generator(),  # without one, every pass draws from the global generator
    )
    return iter(loader)


class _Decoded:
    """Stored tensors as a sequence of pictures."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __getitem__(self, index: int) -> Image.Image:
        return to_picture(self.images[index])


@dataclass(frozen=True, eq=False)
class _Reader(Dataset[_Item]):
    pictures: Any
    transform: Transform
    position: tuple[int, ...] | None

    def __getitem__(self, index: int) -> _Item:
        try:
            picture = self.pictures[index]
        except BadImage as bad:
            return index, str(bad)
        if self.position is None:
            return index, self.transform(picture)
        with global_streams(PICTURE, *self.position, index):
            return index, self.transform(picture)


def _collate(items: list[_Item]) -> _Loaded:
    whole = [(index, pixels) for index, pixels in items if isinstance(pixels, Tensor)]
    failures = [(index, reason) for index, reason in items if isinstance(reason, str)]
    pixels = torch.stack([pixels for _, pixels in whole]) if whole else torch.empty(0)
    return pixels, torch.tensor([index for index, _ in whole], dtype=torch.int64), failures
