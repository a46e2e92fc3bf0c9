"""The classification sets of torchvision.datasets, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data.collection import Collection, Subject, digest
from nas.data.pictures import BadImage, plain
from nas.data.report import shown
from nas.data.splits import Indices
from search_spaces.errors import InputError, did_you_mean

_BY_TRAIN: dict[str, Mapping[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_BY_SPLIT: dict[str, Mapping[str, Any]] = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {**_BY_SPLIT, "validation": {"split": "val"}}
_WHOLE: dict[str, Mapping[str, Any]] = {"train": {}}


@dataclass(frozen=True)
class _Set:
    """How one class of torchvision.datasets is called and what it holds."""

    parts: Mapping[str, Mapping[str, Any]]  # part -> arguments of the constructor
    size: int | None  # pixels, None: many shapes
    files: str  # where they lie inside the data folder
    subject: Subject = field(default="things")


_IDX = "train- and t10k-*-ubyte, unpacked"
_SETS = {
    "Caltech101": _Set(_WHOLE, None, "caltech101/101_ObjectCategories/"),
    "Caltech256": _Set(_WHOLE, None, "caltech256/256_ObjectCategories/"),
    "CIFAR10": _Set(_BY_TRAIN, 32, "cifar-10-batches-py/"),
    "CIFAR100": _Set(_BY_TRAIN, 32, "cifar-100-python/"),
    "Country211": _Set({**_BY_SPLIT, "validation": {"split": "valid"}}, None, "country211/"),
    "DTD": _Set(_THREE, None, "dtd/dtd/"),
    "EMNIST": _Set(
        {part: {"split": "balanced", **by} for part, by in _BY_TRAIN.items()},
        28,
        "EMNIST/raw/emnist-balanced-*-ubyte, unpacked",
        "strokes",
    ),
    "EuroSAT": _Set(_WHOLE, 64, "eurosat/2750/"),
    "FashionMNIST": _Set(_BY_TRAIN, 28, f"FashionMNIST/raw/{_IDX}"),
    "FGVCAircraft": _Set(_THREE, None, "fgvc-aircraft-2013b/data/", "oriented"),
    "Flowers102": _Set(_THREE, None, "flowers-102/{jpg/, imagelabels.mat, setid.mat}"),
    "Food101": _Set(_BY_SPLIT, None, "food-101/{images/, meta/}"),
    "GTSRB": _Set(_BY_SPLIT, 32, "gtsrb/GTSRB/", "oriented"),
    "Imagenette": _Set({"train": {"split": "train"}, "test": {"split": "val"}}, None, "imagenette2/"),
    "KMNIST": _Set(_BY_TRAIN, 28, f"KMNIST/raw/{_IDX}", "strokes"),
    "MNIST": _Set(_BY_TRAIN, 28, f"MNIST/raw/{_IDX}", "strokes"),
    "OxfordIIITPet": _Set(
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
        None,
        "oxford-iiit-pet/{images/, annotations/}",
    ),
    "PCAM": _Set(_THREE, 96, "pcam/"),
    "QMNIST": _Set(_BY_TRAIN, 28, "QMNIST/raw/", "strokes"),
    "RenderedSST2": _Set(_THREE, None, "rendered-sst2/", "oriented"),
    "SEMEION": _Set(_WHOLE, 16, "semeion.data", "strokes"),
    "StanfordCars": _Set(_BY_SPLIT, None, "stanford_cars/"),
    "STL10": _Set(_BY_SPLIT, 96, "stl10_binary/"),
    "SUN397": _Set(_WHOLE, None, "SUN397/"),
    "SVHN": _Set(_BY_SPLIT, 32, "{train,test}_32x32.mat", "oriented"),
    "USPS": _Set(_BY_TRAIN, 16, "usps.bz2, usps.t.bz2", "strokes"),
}
NAMES = tuple(name.lower() for name in _SETS)


@dataclass(frozen=True, eq=False)
class TorchvisionPictures:
    """Datasets of torchvision, one after the other."""

    datasets: tuple[Any, ...]
    starts: tuple[int, ...]
    threads: bool = False  # some read through one open file

    def __len__(self) -> int:
        return self.starts[-1] + len(self.datasets[-1])

    def __getitem__(self, index: int) -> Image.Image:
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        try:
            picture: Image.Image = self.datasets[which][index - self.starts[which]][0]
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadImage((str(error).splitlines() or ["unreadable"])[0][:80]) from None
        return plain(picture, picture.format)

    def check(self, index: int) -> None:
        """Nothing: these are published files, and to look at one is to decode it."""

    def name(self, index: int) -> str:
        return f"image {index}"


def plain_name(name: str) -> str:
    """As in `NAMES`: Fashion-MNIST is fashionmnist."""
    return name.lower().replace("-", "").replace("_", "")


def torchvision_set(name: str, data_dir: Path, download: bool = False) -> Collection:
    """The set called `name` (`plain_name` of it counts) from the files under `data_dir`.

    The official test part stays the test part, and an official validation part the validation part. Sets
    without parts are one collection. With `download` torchvision fetches missing files into `data_dir`.

    Raises:
        FileNotFoundError: the files are not there.
        InputError: no set of that name.
    """
    from torchvision import datasets as published

    official = next((known for known in _SETS if known.lower() == plain_name(name)), None)
    if official is None:
        raise InputError(f"unknown set {name!r}{did_you_mean(name, NAMES)}")
    spec = _SETS[official]
    loaded = {
        part: _open(getattr(published, official), arguments, official, spec, data_dir, download)
        for part, arguments in spec.parts.items()
    }
    starts = np.cumsum([0] + [len(dataset) for dataset in loaded.values()])
    ranges = {part: np.arange(a, b) for part, a, b in zip(loaded, starts[:-1], starts[1:])}
    labels = np.concatenate([_labels(dataset) for dataset in loaded.values()])
    pictures = TorchvisionPictures(tuple(loaded.values()), tuple(int(s) for s in starts[:-1]))
    classes = _classes(loaded["train"], int(labels.max()) + 1)
    return Collection(
        name=official.lower(),
        where=f"{official.lower()} in {shown(str(data_dir))!r}",
        classes=classes,
        labels=labels,
        content=pictures,
        channels=1 if pictures[0].mode == "L" else 3,
        size=spec.size or 224,
        subject=spec.subject,
        identity=digest(official.encode(), labels, classes),
        validation=ranges.get("validation"),
        test=ranges.get("test"),
        varied=spec.size is None,
        notes=(
            f"parts of torchvision: {', '.join(f'{part} {dict(by)}' for part, by in spec.parts.items())}",
        ),
    )


def _open(
    dataset: Any, arguments: Mapping[str, Any], official: str, spec: _Set, data_dir: Path, download: bool
) -> Any:
    try:
        return dataset(root=str(data_dir), **arguments, download=download)
    except (RuntimeError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        wanted = shown(str(data_dir / spec.files))
        if download:
            raise OSError(f"{official.lower()} could not be downloaded to {wanted} ({reason})") from None
        raise FileNotFoundError(
            f"{official.lower()} is not in {shown(str(data_dir))!r}: torchvision looks for {wanted}; "
            f"name the folder that holds it (data_dir) or ask for a download ({reason})"
        ) from None


def _labels(dataset: Any) -> Indices:
    """The labels without decoding the images, where the dataset keeps them in any of the usual places."""
    for name in ("targets", "labels", "_labels", "y"):
        found = getattr(dataset, name, None)
        if found is not None and len(found) == len(dataset):
            return np.asarray(found, np.int64).reshape(-1)
    for name in ("samples", "_samples"):
        found = getattr(dataset, name, None)
        if found is not None and len(found) == len(dataset):
            return np.array([label for _, label in found], np.int64)
    return np.array([dataset[index][1] for index in range(len(dataset))], np.int64)


def _classes(dataset: Any, count: int) -> tuple[str, ...]:
    """Class names; plain numbers where the dataset has none for its labels."""
    names: Sequence[Any] | None = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None or len(names) < count:
        return tuple(str(number) for number in range(count))
    return tuple(shown(name if isinstance(name, str) else ", ".join(map(str, name))) for name in names)
