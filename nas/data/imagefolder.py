"""Folders of pictures: one folder per class, as torchvision's and timm's users arrange them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nas.data.collection import Collection, digest
from nas.data.pictures import SUFFIXES, check_file, decode
from nas.data.report import shown
from nas.data.splits import Indices
from search_spaces.errors import InputError

_PARTS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_LAYOUT = "expected <class>/<image>, or train/<class>/<image> with val/ or test/ beside it"


@dataclass(frozen=True, eq=False)
class FolderPictures:
    """Image files by their names under one folder."""

    root: Path
    names: tuple[str, ...]  # relative, with forward slashes
    threads: bool = True

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.root / self.names[index])

    def check(self, index: int) -> None:
        check_file(self.root / self.names[index])

    def name(self, index: int) -> str:
        return shown(self.names[index])


def imagefolder(root: Path) -> Collection:
    """The pictures under `root`, as RGB.

    `root/<class>/...` is one collection, to be split three ways. With `root/train/<class>/...` and `val/` or
    `test/` beside it those parts are kept: a lone `val` is the test part, as timm's users have it, and
    validation is carved from train. Files whose name starts with a dot and files that are no images by their
    suffix are passed over; folders inside a class folder belong to the class; links are followed once.

    Raises:
        FileNotFoundError: there is no `root`.
        InputError: another layout, fewer than two classes, a class without images.
    """
    if not root.exists():
        raise FileNotFoundError(f"no folder {shown(str(root))!r}")
    if not root.is_dir():
        raise InputError(f"{shown(str(root))!r} is a file; imagefolder needs a folder: {_LAYOUT}")
    parts, notes = _parts(root)
    classes = _class_folders(root / parts["train"])
    where = shown(str(root))
    if not classes:
        raise InputError(f"{where!r} has no class folders; {_LAYOUT}")
    if len(classes) < 2:
        raise InputError(
            f"{where!r} has one class folder only ({shown(classes[0])!r}); a classifier needs two"
        )
    names: list[str] = []
    labels: list[int] = []
    ranges: dict[str, Indices] = {}
    passed_over = 0
    for part, folder in parts.items():
        start = len(names)
        for class_name in _known(_class_folders(root / folder), classes, root / folder):
            found, others = _images(root / folder / class_name)
            passed_over += others
            if not found:
                raise InputError(f"class folder {shown(str(root / folder / class_name))!r} holds no images")
            prefix = f"{folder}/{class_name}/" if folder else f"{class_name}/"
            names += [prefix + name for name in found]
            labels += [classes.index(class_name)] * len(found)
        ranges[part] = np.arange(start, len(names))
    return Collection(
        name=root.resolve().name,
        where=where,
        classes=tuple(shown(name) for name in classes),
        labels=np.array(labels, np.int64),
        content=FolderPictures(root, tuple(names)),
        channels=3,
        size=224,
        subject="things",
        identity=digest(names, np.array([_bytes(root / name) for name in names], np.int64)),
        validation=ranges.get("validation"),
        test=ranges.get("test"),
        photographs=True,
        varied=True,
        other_files=passed_over,
        notes=notes,
    )


def _parts(root: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Which folder under `root` holds which part ("" is `root` itself), and what to say about it."""
    found: dict[str, str] = {}
    notes: list[str] = []
    for folder in _class_folders(root):
        part = _PARTS.get(folder.lower())
        if part is None:
            continue
        if not _class_folders(root / folder):  # ImageNet's test/ is flat; a class may be called "train"
            notes.append(f"{folder}/ has no class folders inside and is not a part of its own")
        elif part in found:
            raise InputError(
                f"{shown(str(root))!r} has both {found[part]}/ and {folder}/ for the {part} part; keep one"
            )
        else:
            found[part] = folder
    if "train" not in found:
        return {"train": ""}, ()
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
        notes.append(f"{found['test']}/ is the test part; validation is carved from {found['train']}/")
    return {part: found[part] for part in ("train", "validation", "test") if part in found}, tuple(notes)


def _class_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            e.name for e in entries if e.is_dir() and not e.name.startswith(".") and e.name != "__MACOSX"
        )


def _known(found: Sequence[str], classes: Sequence[str], folder: Path) -> Sequence[str]:
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise InputError(
            f"{shown(str(folder / unknown[0]))!r} is a class that the train folder does not have"
        )
    return found


def _images(folder: Path) -> tuple[list[str], int]:
    """(image files under `folder`, sorted; number of other files). A linked folder is read once."""
    names: list[str] = []
    others = 0
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        status = os.stat(folder / inside)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    waiting.append(f"{inside}{entry.name}/")
                elif entry.name.lower().endswith(tuple(SUFFIXES)) and _is_file(entry):
                    names.append(inside + entry.name)
                else:
                    others += 1
    return sorted(names), others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    # A broken link counts as an image, a damaged one: it shall be reported. A pipe or a device does not: to
    # open it could wait for ever.
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
