"""From the name of a source to data ready for use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.augment import BatchAugmentation, PictureAugmentation
from nas.data.batches import Normalisation, statistics
from nas.data.collection import Collection, as_grey, digest
from nas.data.dataset import Data
from nas.data.images import ImageData
from nas.data.report import Report, Skipped, check_skipped, shown
from nas.data.seeds import CALIBRATION, stream
from nas.data.splits import Indices, Splits, split
from nas.data.store import Chosen, FileStore, MemoryStore, Store, check_all, decode_all
from nas.data.text import CONTEXT, load_text
from search_spaces.errors import InputError, did_you_mean

MEMORY_LIMIT_BYTES = 2 << 30  # decoded images up to here are kept in memory
PHOTOGRAPH = 96  # pixels: from here on pictures lose a margin and are changed one by one, as on ImageNet
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SAMPLE = 4096  # training images that give mean and std where each would have to be decoded

Storage = Literal["auto", "memory", "files"]


def load_data(
    source: str | Path,
    *,
    image_size: int | None = None,
    context: int | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    validation: float = 0.2,
    test: float | str | Path | None = None,
    download: bool = False,
    workers: int = 0,
    flip: bool | None = None,
    storage: Storage = "auto",
) -> Data:
    """The images or the text of `source`, split and ready to be drawn in batches.

    `source` is `digits`, `imagefolder:PATH` (or the path of a folder), `npz:FILE` (or a path that ends in
    .npz), a set of torchvision by name, whose files are looked for in `data_dir` (default: ./data), or
    `text:PATH` (or a path that ends in .txt), a file or a folder of text; see `load_text`. What is said below
    of images does not apply to text.

    Args:
        image_size: pixels; default 16 for digits, 224 for folders, else the images' own size.
        context: bytes of text that a network sees at once; default 256.
        seed: decides which training images are validation images. The test images do not depend on it.
        validation: fraction of the images that the source does not set aside itself.
        test: likewise (default 0.2), for sources without a test part; for npz also another such file.
        download: let torchvision fetch missing files.
        workers: processes that decode and change pictures, for sets that need it.
        flip: whether to mirror training images; default: only what looks like photographs.
        storage: "memory" or "files" instead of deciding by the size of the decoded images.

    Raises:
        FileNotFoundError: the file, folder or set is not there.
        InputError: anything else that `source` or the settings do not allow, or too many damaged images.
    """
    kind, colon, rest = str(source).partition(":")
    if (kind == "text" and colon) or str(source).lower().endswith(".txt"):
        if colon and not rest:
            raise InputError("'text' needs a path: text:PATH")
        if image_size is not None:
            raise InputError(f"image_size = {image_size} is for images; text has a context: use --context")
        path = Path(rest if colon and kind == "text" else source).expanduser()
        return load_text(str(source), path, CONTEXT if context is None else context)
    if context is not None:
        raise InputError(f"context = {context} is for text; {shown(str(source))!r} holds images")
    for name, number, least, most in (
        ("image_size", image_size, 4, 4096),
        ("workers", workers, 0, 1024),
        ("seed", seed, 0, 2**63 - 1),
    ):
        if number is not None and not least <= number <= most:
            raise InputError(f"{name} = {number} is out of range ({least} to {most})")
    if storage not in ("auto", "memory", "files"):
        raise InputError(f"unknown storage {storage!r}{did_you_mean(storage, ('auto', 'memory', 'files'))}")
    test_fraction = test if isinstance(test, float | int) else None
    collection = _find(str(source), data_dir, None if test_fraction is not None else test, download)
    if test_fraction is not None and collection.test is not None:
        raise InputError(f"{collection.where} has a test part of its own; leave out test = {test_fraction:g}")
    if len(collection.classes) < 2:
        raise InputError(f"{collection.where} has one class only; a classifier needs two")

    size = image_size or collection.size
    crop = _crop(collection, size)
    found = len(collection.labels)
    store, kept, skipped = _store(collection, size, crop, workers, storage)
    labels = collection.labels[kept]
    check_skipped(skipped, found, collection.where)
    splits = split(
        labels,
        seed=seed,
        validation=validation,
        test=0.2 if test_fraction is None else float(test_fraction),
        own_validation=_moved(collection.validation, kept),
        own_test=_moved(collection.test, kept),
    )
    absent = np.setdiff1d(np.arange(len(collection.classes)), labels[splits.train])
    if collection.photographs and len(absent):
        raise InputError(
            f"{collection.where}: class {collection.classes[absent[0]]!r} has no readable training image"
        )
    notes = collection.notes
    if len(absent):
        notes += (f"{len(absent)} classes have no training image, first {collection.classes[absent[0]]!r}",)
    normalisation, statistics_from = _normalisation(collection, store, splits, seed)
    return ImageData(
        source=str(source),
        name=collection.name,
        classes=collection.classes,
        channels=store.channels,
        image_size=size,
        splits=splits,
        seed=seed,
        normalisation=normalisation,
        statistics_from=statistics_from,
        augmentation=_augmentation(collection, size, store.channels, len(splits.train), flip),
        crop=crop,
        fingerprint=digest(
            collection.identity.encode(),
            labels,
            collection.classes,
            splits.train,
            splits.validation,
            splits.test,
        ),
        report=Report(found, tuple(skipped), collection.other_files, notes),
        store=store,
        labels=torch.from_numpy(labels),
    )


def _find(
    source: str, data_dir: str | Path | None, test: float | str | Path | None, download: bool
) -> Collection:
    from nas.data.digits import digits
    from nas.data.imagefolder import imagefolder
    from nas.data.npz import npz
    from nas.data.torchvision_sets import NAMES, plain_name, torchvision_set

    kind, _, rest = source.partition(":")
    is_npz = (kind == "npz" and bool(rest)) or source.lower().endswith(".npz")
    if test is not None and not is_npz:
        raise InputError(
            f"test = {shown(str(test))!r} is a file; only an npz source can have its test part in one"
        )
    if is_npz:
        path = Path(rest if kind == "npz" and rest else source).expanduser()
        return npz(path, None if test is None else Path(str(test)).expanduser())
    if kind in ("imagefolder", "npz", "text"):
        if not rest:
            raise InputError(f"{kind!r} needs a path: {kind}:PATH")
        return imagefolder(Path(rest).expanduser())
    if source == "digits":
        return digits()
    if plain_name(source) in NAMES:
        return torchvision_set(source, Path("data" if data_dir is None else data_dir).expanduser(), download)
    if Path(source).expanduser().is_dir():
        return imagefolder(Path(source).expanduser())
    if os.sep in source and not rest:
        raise FileNotFoundError(f"no folder {shown(source)!r}")
    known = ("digits", "imagefolder:PATH", "npz:FILE", "text:PATH", *NAMES)
    asked = f"{kind}:PATH" if rest else source
    raise InputError(f"unknown data {shown(source)!r}{did_you_mean(asked, known)}")


def _crop(collection: Collection, size: int) -> float | None:
    if isinstance(collection.content, Tensor):
        return None
    return 0.875 if collection.varied and size >= PHOTOGRAPH else 1.0


def _store(
    collection: Collection, size: int, crop: float | None, workers: int, storage: Storage
) -> tuple[Store, Indices, list[Skipped]]:
    content, channels = collection.content, collection.channels
    if isinstance(content, Tensor):
        return MemoryStore(_resized(content, size), workers), np.arange(len(content)), []
    assert crop is not None
    if storage == "files" or (
        storage == "auto" and len(content) * channels * size * size > MEMORY_LIMIT_BYTES
    ):
        kept, skipped = check_all(content)
        pictures = content if not skipped else Chosen(content, kept)
        return FileStore(pictures, size, crop, channels, collection.where, workers), kept, skipped
    images, kept, skipped = decode_all(content, size, crop, channels)
    return MemoryStore(images if collection.photographs else as_grey(images), workers), kept, skipped


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[2:] == (size, size):
        return images
    resized = torch.empty(*images.shape[:2], size, size, dtype=images.dtype)
    for start in range(0, len(images), 1024):  # in blocks: the float copy is four times as large
        block = images[start : start + 1024].float()
        block = F.interpolate(block, (size, size), mode="bilinear", antialias=True, align_corners=False)
        if images.dtype == torch.uint8:
            block = block.round().clamp(0, 255)
        resized[start : start + 1024] = block.to(images.dtype)
    return resized


def _moved(part: Indices | None, kept: Indices) -> Indices | None:
    """Positions of `part` after all but `kept` have been left out."""
    return None if part is None else np.flatnonzero(np.isin(kept, part))


def _normalisation(
    collection: Collection, store: Store, splits: Splits, seed: int
) -> tuple[Normalisation, str]:
    content = collection.content
    divisor = 1.0 if isinstance(content, Tensor) and content.dtype != torch.uint8 else 255.0
    if collection.photographs:
        return Normalisation(divisor, IMAGENET_MEAN, IMAGENET_STD), "ImageNet"
    sample = splits.train
    if not store.in_memory:
        sample = stream(CALIBRATION, seed).permutation(sample)[:_SAMPLE]
    return Normalisation(divisor, *statistics(store, sample, divisor)), f"{len(sample)} training images"


def _augmentation(
    collection: Collection, size: int, channels: int, train: int, flip: bool | None
) -> BatchAugmentation | PictureAugmentation:
    mirrored = collection.subject == "things" if flip is None else flip
    if collection.subject == "strokes":
        return BatchAugmentation(max(1, round(size / 14)), "zero", mirrored, rotation_deg=10.0, zoom=0.1)
    if not isinstance(collection.content, Tensor) and size >= PHOTOGRAPH:
        # Crops down to 8 % of the area, as on ImageNet, ask more of a small set than it can teach.
        return PictureAugmentation(size, (0.08 if train >= 100_000 else 0.35, 1.0), mirrored)
    return BatchAugmentation(max(1, size // (8 if channels == 3 else 14)), "reflect", mirrored)
