"""Sets of torchvision: real files where they are, and errors that say where they should be."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import load_data
from nas.data.torchvision_sets import _SETS
from search_spaces.errors import InputError

torchvision = pytest.importorskip("torchvision")


def idx(values: np.ndarray) -> bytes:
    """`values` (uint8) in the format of MNIST."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.tobytes()


def write_mnist(root: Path, name: str = "MNIST", train: int = 60, test: int = 20) -> np.ndarray:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (train + test, 28, 28), np.uint8)
    for part, images_of_it in (("train", images[:train]), ("t10k", images[train:])):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images_of_it))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            idx((np.arange(len(images_of_it)) % 10).astype(np.uint8))
        )
    return images


def test_a_set_by_train(tmp_path: Path) -> None:
    images = write_mnist(tmp_path)
    data = load_data("MNIST", data_dir=tmp_path)
    assert data.name == "mnist"
    assert data.splits.sizes == {"train": 50, "validation": 10, "test": 20}
    assert np.array_equal(data.test, np.arange(60, 80))
    assert (data.channels, data.image_size, len(data.classes)) == (1, 28, 10)
    assert np.array_equal(data.store.images[:, 0].numpy(), images)
    assert not data.augmentation.flip
    files = load_data("mnist", data_dir=tmp_path, storage="files")
    assert (files.mean, files.std) == (data.mean, data.std)
    assert torch.equal(
        next(files.train_batches(9, 0).epoch(0))[0], next(data.train_batches(9, 0).epoch(0))[0]
    )


def test_a_set_by_split_with_three_parts_and_many_shapes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for k, name in enumerate(("AD", "AE")):
            for i in range(4):
                path = tmp_path / "country211" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (20 + i, 30 + k, 3), np.uint8)).save(path)
    data = load_data("country211", data_dir=tmp_path, image_size=32)
    assert data.splits.sizes == {"train": 8, "validation": 8, "test": 8}
    assert data.classes == ("AD", "AE")
    assert data.labels[torch.from_numpy(data.validation)].tolist() == [0] * 4 + [1] * 4
    assert data.augmentation.flip


def test_a_set_without_parts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("Forest", "River"):
        for i in range(10):
            path = tmp_path / "eurosat" / "2750" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    data = load_data("EuroSAT", data_dir=tmp_path)
    assert data.splits.sizes == {"train": 12, "validation": 4, "test": 4}
    assert data.image_size == 64


@pytest.mark.parametrize("name", sorted(_SETS))
def test_missing_files_are_named_for_every_set(tmp_path: Path, name: str) -> None:
    """Also: every name in the table is a class of this torchvision that takes the arguments given there."""
    with pytest.raises(FileNotFoundError, match=f"^{name.lower()} is not in ") as caught:
        load_data(name, data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_names() -> None:
    with pytest.raises(InputError, match="did you mean 'fashionmnist'"):
        load_data("fashion_mnits")
    with pytest.raises(InputError, match="did you mean 'cifar100'"):
        load_data("cifar-1000")


def test_dashes_in_a_name_do_not_matter(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cifar100 is not in"):
        load_data("CIFAR-100", data_dir=tmp_path)


def test_damaged_files(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises((FileNotFoundError, InputError), match="mnist") as caught:
        load_data("mnist", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_cifar_from_its_pickles_is_left_to_torchvisions_checksums(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}))
    with pytest.raises(FileNotFoundError, match="corrupted"):
        load_data("cifar10", data_dir=tmp_path)


def test_the_real_fashion_mnist(tmp_path: Path, data_dir: Path) -> None:
    source = data_dir / "fashion-mnist"
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in source.glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    data = load_data("fashionmnist", data_dir=tmp_path)
    assert data.splits.sizes == {"train": 48000, "validation": 12000, "test": 10000}
    assert data.classes[0] == "T-shirt/top"
    assert data.labels[torch.from_numpy(data.validation)].bincount().tolist() == [1200] * 10
    # published for all 60,000 training images: 0.2860 and 0.3530
    assert abs(data.mean[0] - 0.2860) < 2e-3
    assert abs(data.std[0] - 0.3530) < 2e-3
    assert data.labels[data.test[0]] == 9  # the first test image is an ankle boot


def test_the_real_cifar_as_jpegs(data_dir: Path) -> None:
    data = load_data(data_dir / "cifar10" / "cifar10_test_a_jpeg.npz")
    assert data.splits.sizes == {"train": 3000, "validation": 1000, "test": 1000}
    assert (data.channels, data.image_size) == (3, 32)
    assert data.classes[2] == "bird"
    assert np.allclose(data.mean, (0.491, 0.482, 0.447), atol=0.01)
