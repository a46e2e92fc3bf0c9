"""npz files: every layout that is around, and what is wrong with the others."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data import load_data
from nas.data.arrays import as_classes, as_images
from search_spaces.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 8, 8, 3), np.uint8)
LABELS = np.arange(40) % 4


def save(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def jpegs(images: np.ndarray) -> dict[str, np.ndarray]:
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    offsets = np.cumsum([0] + [len(f) for f in files])
    return {"jpeg": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets}


@pytest.mark.parametrize(
    ("images", "channels"),
    [
        (PIXELS, 3),
        (PIXELS.transpose(0, 3, 1, 2), 3),
        (PIXELS[..., 0], 1),
        (PIXELS[..., :1], 1),
        (np.repeat(PIXELS[..., :1], 3, -1), 1),
        (PIXELS.astype(np.float64), 3),
        (PIXELS.astype(np.int64), 3),
    ],
)
def test_layouts_and_types_give_the_same_pixels(tmp_path: Path, images: np.ndarray, channels: int) -> None:
    data = load_data(save(tmp_path / "a.npz", x=images, y=LABELS))
    assert data.channels == channels
    assert data.image_size == 8
    assert data.splits.sizes == {"train": 24, "validation": 8, "test": 8}
    assert np.array_equal(data.store.images.numpy(), PIXELS.transpose(0, 3, 1, 2)[:, :channels])
    assert data.augmentation.flip == (channels == 3)
    assert not load_data(tmp_path / "a.npz", flip=False).augmentation.flip


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(5, 9), st.integers(5, 9), st.booleans())
def test_the_channel_axis_is_found(channels: int, height: int, width: int, last: bool) -> None:
    x = RNG.integers(0, 256, (3, channels, height, width), np.uint8)
    given_ = x.transpose(0, 2, 3, 1) if last else x
    assert np.array_equal(as_images(given_, "t").numpy(), x)


def test_floats_stay_floats(tmp_path: Path) -> None:
    x = RNG.normal(size=(40, 8, 8)).astype(np.float32)
    data = load_data(save(tmp_path / "a.npz", x=x, y=LABELS))
    assert data.store.images.dtype == torch.float32
    assert data.normalisation.divisor == 1
    seen, _ = next(iter(data.test_batches(8)))
    restored = seen * torch.tensor(data.std) + torch.tensor(data.mean)
    assert np.allclose(restored[:, 0].numpy(), x[data.test], atol=1e-5)
    assert data.preprocessing()["value_range"] == "as stored (float)"


def test_parts_in_the_usual_spellings(tmp_path: Path) -> None:
    two = save(tmp_path / "keras.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:8], y_test=LABELS[:8])
    assert load_data(two).splits.sizes == {"train": 32, "validation": 8, "test": 8}
    three = save(
        tmp_path / "medmnist.npz",
        **{f"{p}_images": PIXELS[:n] for p, n in (("train", 40), ("val", 12), ("test", 8))},
        **{f"{p}_labels": LABELS[:n, None] for p, n in (("train", 40), ("val", 12), ("test", 8))},
    )
    assert load_data(three).splits.sizes == {"train": 40, "validation": 12, "test": 8}
    lone = save(tmp_path / "lone.npz", x_train=PIXELS, y_train=LABELS, x_val=PIXELS[:8], y_val=LABELS[:8])
    data = load_data(lone)
    assert data.splits.sizes == {"train": 32, "validation": 8, "test": 8}
    assert "validation part is the test part" in data.report.notes[0]


def test_jpeg_byte_strings_and_a_second_file_as_test(tmp_path: Path) -> None:
    names = np.array(["a", "b", "c", "d"])
    train = save(tmp_path / "train.npz", **jpegs(PIXELS), label=LABELS, class_names=names)
    test = save(tmp_path / "test.npz", **jpegs(PIXELS[:12]), label=LABELS[:12], class_names=names)
    alone = load_data(train)
    assert alone.splits.sizes == {"train": 24, "validation": 8, "test": 8}
    data = load_data(f"npz:{train}", test=test)
    assert data.classes == ("a", "b", "c", "d")
    assert data.splits.sizes == {"train": 32, "validation": 8, "test": 12}
    assert data.image_size == 8
    again = Image.open(io.BytesIO(jpegs(PIXELS[:1])["jpeg"].tobytes()))
    assert np.array_equal(data.store.images[40].numpy(), np.asarray(again).transpose(2, 0, 1))
    files = load_data(train, test=test, storage="files")
    assert files.mean == data.mean
    assert files.std == data.std
    assert torch.equal(next(iter(files.test_batches(5)))[0], next(iter(data.test_batches(5)))[0])


def test_damaged_jpegs_are_skipped_or_stop(tmp_path: Path) -> None:
    arrays = jpegs(PIXELS)
    arrays["jpeg"] = arrays["jpeg"].copy()
    for k, bad in enumerate((7, 9, 11)):
        arrays["jpeg"][arrays["offsets"][bad] : arrays["offsets"][bad] + 20] = 0
        path = save(tmp_path / f"{k}.npz", **arrays, label=LABELS)
        if k == 0:
            assert [s.name for s in load_data(path).skipped] == ["image 7"]
        else:
            with pytest.raises(InputError, match="image 7"):
                load_data(path)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (np.array(["dog", "cat", "dog"]), ("cat", "dog"), [1, 0, 1]),
        (np.array([b"dog", b"cat", b"dog"]), ("cat", "dog"), [1, 0, 1]),
        (np.array([5, 9, 5]), ("5", "9"), [0, 1, 0]),
        (np.array([1.0, 0.0, 1.0]), ("0", "1"), [1, 0, 1]),
        (np.array([[1], [0], [1]]), ("0", "1"), [1, 0, 1]),
        (np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0]]), ("0", "1", "2"), [1, 0, 1]),
        (np.array([True, False, True]), ("False", "True"), [1, 0, 1]),
    ],
)
def test_kinds_of_labels(labels: np.ndarray, classes: tuple[str, ...], numbers: list[int]) -> None:
    found, names = as_classes(labels, None, "t")
    assert names == classes
    assert found.tolist() == numbers


def test_images_that_are_not_square(tmp_path: Path) -> None:
    data = load_data(save(tmp_path / "a.npz", x=RNG.normal(size=(40, 6, 10)), y=LABELS))
    assert data.image_size == 10
    assert "6x10" in data.report.notes[0]
    assert data.store.images.shape == (40, 1, 10, 10)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("payload-ran", "w"))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": PIXELS}, "has x but no y"),
        ({"x": PIXELS, "y": LABELS[:9]}, "x and y differ in length"),
        ({"x": PIXELS[:, :4, :4], "y": LABELS}, "which axis is the channels"),
        ({"x": np.repeat(PIXELS, 2, -1), "y": LABELS}, "no axis of 1 to 4 channels"),
        ({"x": PIXELS[0, 0], "y": LABELS[:8]}, "images of shape 8x3"),
        ({"x": np.full((40, 8, 8), np.nan), "y": LABELS}, "2560 values of the images are not finite"),
        ({"x": PIXELS, "y": LABELS + 0.5}, "labels are fractions"),
        (
            {"x": PIXELS, "y": LABELS, "class_names": np.array(["a", "b"])},
            "from 0 to 3 but there are 2 class names",
        ),
        ({"x": PIXELS, "y": LABELS * 0}, "one class only"),
        ({"audio": LABELS}, "holds audio; expected x, y"),
        ({"x_test": PIXELS, "y_test": LABELS}, "no images to train on"),
        ({"x": np.array([Payload()] * 40), "y": LABELS}, "holds pickled objects"),
        ({"jpeg": PIXELS.ravel(), "label": LABELS}, "jpeg but no offsets"),
        ({"jpeg": PIXELS.ravel(), "label": LABELS, "offsets": np.arange(40)}, "jpeg must be uint8"),
        ({"jpeg": PIXELS.ravel(), "label": LABELS, "offsets": np.arange(41)[::-1]}, "do not lie in order"),
        ({"jpeg": PIXELS.ravel(), "label": LABELS, "offsets": np.arange(41) * 999}, "do not lie in order"),
    ],
)
def test_wrong_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, np.ndarray], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        load_data(save(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "payload-ran").exists()


def test_damaged_archives(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.npz", x=PIXELS, y=LABELS).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0x10
    for content in (b"", b"text", whole[: len(whole) // 2], bytes(flipped)):
        path = tmp_path / "b.npz"
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            load_data(path)
    with pytest.raises(FileNotFoundError, match=r"^no file "):
        load_data(tmp_path / "nowhere.npz")


def test_an_array_that_claims_to_be_huge(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(InputError, match=r"memory|damaged"):
        load_data(tmp_path / "a.npz")


def test_two_test_parts(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    with pytest.raises(InputError, match="has a test part of its own"):
        load_data(path, test=path)
    with pytest.raises(InputError, match=r"leave out test = 0\.3"):
        load_data(path, test=0.3)
