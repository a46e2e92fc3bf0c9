"""NumPy archives: images and labels as arrays, or as JPEG byte strings."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from nas.data.arrays import as_classes, as_images
from nas.data.collection import Collection, as_grey, digest
from nas.data.pictures import BadImage, decode
from nas.data.report import shown
from nas.data.splits import Indices
from search_spaces.errors import InputError

MAX_BYTES = 16 << 30  # unpacked; a small archive can claim to hold any number
# Images and labels of each part, in the spellings that are around (Keras, MedMNIST, plain).
_KEYS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("x", "y"), ("images", "labels")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
_LAYOUTS = "x, y; or x_train, y_train with x_test, y_test or x_val, y_val; or jpeg, offsets, label"


@dataclass(frozen=True, eq=False)
class JpegPictures:
    """Image files laid end to end in one array."""

    content: NDArray[np.uint8]
    offsets: Indices  # [N + 1]
    threads: bool = True

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.content[self.offsets[index] : self.offsets[index + 1]].tobytes())

    def check(self, index: int) -> None:
        self[index]  # the bytes are in memory already: to decode is the only check left

    def name(self, index: int) -> str:
        return f"image {index}"


Arrays = Mapping[str, NDArray[Any]]


def npz(path: Path, test: Path | None = None) -> Collection:
    """The images of `path`, with those of `test` as the test part if it is given.

    Images are [N, H, W], [N, H, W, C] or [N, C, H, W] with up to four channels, integers or floats; three
    equal channels become one. Labels are integers, strings or one-hot rows; `class_names` is optional.
    Pickled objects are never loaded.

    Raises:
        FileNotFoundError: no such file.
        InputError: not such an archive, or arrays that do not fit together.
    """
    parts = _parts(_read(path), path)
    notes: list[str] = []
    if test is not None:
        if "test" in parts:
            raise InputError(f"{_short(path)} has a test part of its own; leave out test = {_short(test)}")
        others = _parts(_read(test), test)
        parts["test"] = others.get("test") or others["train"]
        if parts["test"][2] != parts["train"][2]:
            raise InputError(f"{_short(path)} and {_short(test)} have different class_names")
    elif "validation" in parts and "test" not in parts:
        parts["test"] = parts.pop("validation")
        notes.append("the archive's validation part is the test part; validation is carved from train")
    where = _short(path)
    labels, classes = as_classes(
        _labels([part[1] for part in parts.values()], where), parts["train"][2], where
    )
    ends = np.cumsum([len(part[1]) for part in parts.values()])
    ranges = {name: np.arange(end - len(parts[name][1]), end) for name, end in zip(parts, ends)}
    content = _joined([part[0] for part in parts.values()], where)
    varied = False
    if isinstance(content, JpegPictures):
        channels, size, varied = _look(content)
        identity = digest(content.content, content.offsets, labels, classes)
    else:
        channels, size = content.shape[1], int(max(content.shape[2:]))
        if content.shape[2] != content.shape[3]:
            notes.append(f"images of {content.shape[2]}x{content.shape[3]} pixels are stretched to a square")
        identity = digest(content.numpy(), labels, classes)
    if len(labels) != len(content):
        raise InputError(f"{where} has {len(content)} images but {len(labels)} labels")
    return Collection(
        name=path.stem,
        where=where,
        classes=classes,
        labels=labels,
        content=content,
        channels=channels,
        size=size,
        subject="things" if channels == 3 else "oriented",
        identity=identity,
        validation=ranges.get("validation"),
        test=ranges.get("test"),
        varied=varied,
        notes=tuple(notes),
    )


_Part = tuple["NDArray[Any] | JpegPictures", NDArray[Any], tuple[str, ...] | None]


def _read(path: Path) -> dict[str, NDArray[Any]]:
    wanted = {key for pairs in _KEYS.values() for pair in pairs for key in pair}
    wanted |= {"jpeg", "offsets", "label", "class_names"}
    if not path.exists():
        raise FileNotFoundError(f"no file {_short(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        total = sum(size for key, size in found.items() if key in wanted)
        if total > MAX_BYTES:
            raise InputError(
                f"{_short(path)} unpacks to {total / 2**30:.0f} GiB; the limit is {MAX_BYTES >> 30}"
            )
        with np.load(path, allow_pickle=False) as arrays:
            loaded = {key: arrays[key] for key in found if key in wanted}
    except InputError:
        raise
    except PermissionError:
        raise
    except MemoryError:
        raise InputError(f"{_short(path)} does not fit in memory") from None
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise InputError(f"{_short(path)} holds pickled objects; save plain arrays instead") from None
        raise InputError(f"{_short(path)} is damaged ({_first_line(error)})") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        KeyError,
        NotImplementedError,
        SyntaxError,
    ) as error:
        raise InputError(f"{_short(path)} is not an npz archive, or damaged ({_first_line(error)})") from None
    if not loaded.keys() - {"class_names"}:
        names = ", ".join(shown(name) for name in sorted(found)[:12]) or "nothing"
        raise InputError(f"{_short(path)} holds {names}; expected {_LAYOUTS}")
    return loaded


def _parts(arrays: Arrays, path: Path) -> dict[str, _Part]:
    names = None
    if "class_names" in arrays:
        names = tuple(
            shown(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n))
            for n in arrays["class_names"].ravel().tolist()
        )
    parts: dict[str, _Part] = {}
    for part, pairs in _KEYS.items():
        for images, labels in pairs:
            if part not in parts and images in arrays:
                if labels not in arrays:
                    raise InputError(f"{_short(path)} has {images} but no {labels}")
                if arrays[images].ndim == 0 or len(arrays[images]) != len(np.atleast_1d(arrays[labels])):
                    raise InputError(f"{_short(path)}: {images} and {labels} differ in length")
                parts[part] = (arrays[images], arrays[labels], names)
    if "jpeg" in arrays and "train" not in parts:
        parts["train"] = _jpeg_part(arrays, path, names)
    if "train" not in parts:
        raise InputError(f"{_short(path)} has no images to train on; expected {_LAYOUTS}")
    return {part: parts[part] for part in _KEYS if part in parts}


def _jpeg_part(arrays: Arrays, path: Path, names: tuple[str, ...] | None) -> _Part:
    missing = [key for key in ("offsets", "label") if key not in arrays]
    if missing:
        raise InputError(f"{_short(path)} has jpeg but no {missing[0]}")
    content, offsets, labels = arrays["jpeg"], arrays["offsets"], arrays["label"]
    whole = (
        content.dtype == np.uint8 and content.ndim == 1 and offsets.ndim == 1 and offsets.dtype.kind in "iu"
    )
    if not whole or len(offsets) != len(labels) + 1:
        raise InputError(f"{_short(path)}: jpeg must be uint8 [bytes], offsets integers [n + 1], label [n]")
    offsets = offsets.astype(np.int64)
    if (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > len(content):
        raise InputError(f"{_short(path)}: offsets do not lie in order within jpeg ({len(content)} bytes)")
    return JpegPictures(content, offsets), labels, names


def _joined(contents: list[NDArray[Any] | JpegPictures], where: str) -> torch.Tensor | JpegPictures:
    jpeg = [content for content in contents if isinstance(content, JpegPictures)]
    if jpeg and len(jpeg) < len(contents):
        raise InputError(f"{where}: one part has JPEG images, another arrays")
    if jpeg:
        starts = np.cumsum([0] + [len(c.content) for c in jpeg[:-1]])
        offsets = [c.offsets[:-1] + start for c, start in zip(jpeg, starts)]
        # An image ends where the next begins; files must therefore lie end to end also where two arrays meet.
        if any(c.offsets[0] != 0 or c.offsets[-1] != len(c.content) for c in jpeg):
            raise InputError(f"{where}: offsets must start at 0 and end at the length of jpeg")
        last = np.array([sum(len(c.content) for c in jpeg)], np.int64)
        return JpegPictures(np.concatenate([c.content for c in jpeg]), np.concatenate([*offsets, last]))
    arrays = [content for content in contents if not isinstance(content, JpegPictures)]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        raise InputError(
            f"{where}: the parts have images of different shapes: {', '.join(map(str, sorted(shapes)))}"
        )
    return as_grey(as_images(np.concatenate(arrays) if len(arrays) > 1 else arrays[0], where))


def _labels(parts: list[NDArray[Any]], where: str) -> NDArray[Any]:
    flat = [part[:, 0] if part.ndim == 2 and part.shape[1] == 1 else np.atleast_1d(part) for part in parts]
    if len({part.shape[1:] for part in flat}) > 1 or len({part.dtype.kind in "US" for part in flat}) > 1:
        raise InputError(f"{where}: the parts have labels of different kinds")
    return np.concatenate(flat)


def _look(pictures: JpegPictures, count: int = 64) -> tuple[int, int, bool]:
    """(channels, default size, whether shapes vary), judged by the first pictures."""
    shapes = set()
    modes = set()
    for index in range(min(count, len(pictures))):
        try:
            picture = pictures[index]
        except BadImage:
            continue
        shapes.add(picture.size)
        modes.add(picture.mode)
    channels = 1 if modes == {"L"} else 3
    width, height = next(iter(shapes), (0, 1))
    return (channels, width, False) if len(shapes) == 1 and width == height else (channels, 224, True)


def _short(path: Path) -> str:
    return repr(shown(str(path)))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]
