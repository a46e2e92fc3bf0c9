"""Batches can be repeated from any point, leave the global generators alone and are recorded completely."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data import Data, load_data
from search_spaces.errors import InputError


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", image_size=8)


def same(a: list[tuple[torch.Tensor, torch.Tensor]], b: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(a) == len(b) and all(torch.equal(p, q) for one, two in zip(a, b) for p, q in zip(one, two))


def test_digits_are_all_there(data: Data) -> None:
    assert sum(data.splits.sizes.values()) == 1797
    assert data.splits.sizes == {"train": 1079, "validation": 359, "test": 359}
    assert (data.channels, data.image_size, len(data.classes)) == (1, 8, 10)
    default = load_data("digits")
    assert default.image_size == 16
    assert np.array_equal(default.test, load_data("digits", seed=7).test)
    assert default.fingerprint != load_data("digits", seed=7).fingerprint
    assert default.fingerprint == data.fingerprint  # the content's, not its display size


def test_digits_have_the_pixels_of_scikit_learn(data: Data) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = next(iter(data.test_batches(400)))
    restored = (x * torch.tensor(data.std) + torch.tensor(data.mean)) * 16
    assert np.abs(restored[:, 0].numpy() - bunch.images[data.test]).max() < 16 / 255
    assert np.array_equal(y.numpy(), bunch.target[data.test])


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 400), st.integers(0, 5), st.integers(0, 3), st.data())
def test_an_epoch_from_the_middle_is_its_tail(
    data: Data, batch_size: int, seed: int, epoch: int, draw: st.DataObject
) -> None:
    batches = data.train_batches(batch_size, seed)
    start = draw.draw(st.integers(0, batches.steps))
    if batches.steps > 50:
        return
    whole = list(batches.epoch(epoch))
    assert len(whole) == batches.steps == 1079 // batch_size
    assert all(len(y) == batch_size and x.dtype == torch.float32 and y.dtype == torch.int64 for x, y in whole)
    assert same(list(batches.epoch(epoch, start)), whole[start:])


def test_order_depends_on_seed_and_epoch(data: Data) -> None:
    def order(seed: int, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(data.train_batches(128, seed, augment=False).epoch(epoch))

    assert same(order(0, 0), order(0, 0))
    assert not same(order(0, 0), order(0, 1))
    assert not same(order(0, 0), order(1, 0))


def test_an_epoch_shows_every_training_image_once(data: Data) -> None:
    x = torch.cat([x for x, _ in data.train_batches(83, 0, augment=False).epoch(0)])  # 13 x 83 = 1079
    stored = data.normalisation(data.store.images[torch.from_numpy(data.train)])
    assert sorted(map(bytes, x.numpy())) == sorted(map(bytes, stored.numpy()))


def test_a_batch_larger_than_the_set_is_the_set(data: Data) -> None:
    batches = data.train_batches(5000, 0)
    assert batches.steps == 1
    assert [len(y) for _, y in batches.epoch(0)] == [1079]


def test_training_images_are_normalised(data: Data) -> None:
    x = torch.cat([x for x, _ in data.train_batches(83, 0, augment=False).epoch(0)])
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-3


def test_validation_and_test_are_whole_and_repeatable(data: Data) -> None:
    for batches in (data.validation_batches(100), data.test_batches(100)):
        first, second = list(batches), list(batches)
        assert same(first, second)
        assert [len(y) for _, y in first] == [100, 100, 100, 59]
        assert batches.steps == len(batches) == 4


def test_calibration_images_are_fixed_and_from_training(data: Data) -> None:
    batches = data.calibration_batches(300, 128)
    assert [len(y) for _, y in batches] == [128, 128]
    assert same(batches, data.calibration_batches(300, 128))
    stored = set(map(bytes, data.normalisation(data.store.images[torch.from_numpy(data.train)]).numpy()))
    assert all(bytes(image) in stored for x, _ in batches for image in x.numpy())
    assert [len(y) for _, y in data.calibration_batches(5000, 2000)] == [1079]


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    for k in range(2):
        for i in range(8):
            path = tmp_path / f"c{k}" / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 30, 3), np.uint8)).save(path)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    for source, size in (("digits", 16), (f"imagefolder:{tmp_path}", 96), (f"imagefolder:{tmp_path}", 16)):
        for storage in ("auto", "files") if source != "digits" else ("auto",):
            data = load_data(source, image_size=size, storage=storage)
            list(data.train_batches(4, 0).epoch(0))
            list(data.validation_batches(4))
            data.calibration_batches(8, 4)
            data.describe()
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_results_do_not_depend_on_the_global_generators(data: Data) -> None:
    torch.manual_seed(1)
    one = list(data.train_batches(256, 0).epoch(0))
    torch.manual_seed(2)
    assert same(one, list(data.train_batches(256, 0).epoch(0)))


def test_the_record_is_json_and_complete(data: Data) -> None:
    record = json.loads(json.dumps(data.describe()))
    assert record["sizes"] == data.splits.sizes
    assert record["normalisation"]["mean"] == list(data.mean)
    assert record["transforms"]["train"]["rotation_deg"] == 10.0
    assert not record["transforms"]["train"]["flip"]
    assert record["split_seed"] == 0
    assert len(record["fingerprint"]) == 64


def test_preprocessing_is_enough_to_feed_a_network(tmp_path: Path) -> None:
    """An image prepared from the record alone equals the one that validation sees."""
    for k in range(2):
        for i in range(6):
            path = tmp_path / f"c{k}" / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = np.random.default_rng(i + 10 * k).integers(0, 256, (9, 12, 3), np.uint8)
            Image.fromarray(pixels).resize((200, 150), Image.Resampling.BICUBIC).save(path)
    data = load_data(f"imagefolder:{tmp_path}", image_size=112)
    how = json.loads(json.dumps(data.preprocessing()))
    assert how["resize"]["shorter_side"] == 128
    number = int(data.test[0])
    path = tmp_path / f"c{number // 6}" / f"{number % 6}.png"
    picture = Image.open(path).convert("RGB")
    scale = how["resize"]["shorter_side"] / min(picture.size)
    picture = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR
    )
    side = how["resize"]["crop"]["size"]
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    x = np.asarray(picture.crop((left, top, left + side, top + side)), np.float32).transpose(2, 0, 1)
    x = (x / how["divisor"] - np.array(how["mean"])[:, None, None]) / np.array(how["std"])[:, None, None]
    seen, _ = next(iter(data.test_batches(1)))
    assert np.abs(seen[0].numpy() - x).mean() < 0.05
    assert data.preprocessing(64)["input"]["shape"] == [3, 64, 64]


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("digitz", {}, "unknown data 'digitz'; did you mean 'digits'"),
        ("cifr10", {}, "did you mean 'cifar10'"),
        ("imagefoldr:/some/where", {}, "did you mean 'imagefolder:PATH'"),
        ("imagefolder:", {}, "'imagefolder' needs a path"),
        ("digits", {"image_size": 1}, "image_size = 1 is out of range"),
        ("digits", {"seed": -1}, "seed = -1"),
        ("digits", {"validation": 1.5}, "validation = 1.5"),
        ("digits", {"test": "other.npz"}, "only an npz source"),
        ("digits", {"storage": "file"}, "did you mean 'files'"),
    ],
)
def test_wrong_names_and_settings(source: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_data(source, **options)  # type: ignore[arg-type]


def test_wrong_batch_sizes(data: Data) -> None:
    with pytest.raises(InputError, match="too few"):
        data.train_batches(0, 0)
    with pytest.raises(InputError, match="seed -3 is negative"):
        data.train_batches(8, -3)


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = ("timm", "torchvision", "sklearn", "pandas", "matplotlib")
    code = f"import sys, nas.data; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("turned", [False, True])
def test_the_parts_of_several_ranks_are_the_batches_of_one(turned: bool) -> None:
    """Changes too: a rank draws for the whole batch and changes its own images."""
    from dataclasses import replace

    from supernets.distributed import Ranks

    data = load_data("digits")
    batches = data.train_batches(50, 3)
    how = replace(batches.augmentation, rotation_deg=5.0 * turned, zoom=0.1 * turned, flip=True)
    batches = replace(batches, augmentation=how)
    whole = list(batches.epoch(2, 18))
    parts = [list(batches.shards(2, 18, Ranks(rank, 3))) for rank in range(3)]
    assert [len(one) for one in parts] == [len(whole)] * 3
    for (x, y), *mine in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part.y for part in mine]), y)
        torch.testing.assert_close(torch.cat([part.x for part in mine]), x, rtol=0, atol=1e-6)
    few = replace(batches, batch_size=1)
    assert [len(next(few.shards(0, 0, Ranks(rank, 3))).y) for rank in range(3)] == [0, 0, 1]
