"""Image folders: layouts, damaged and odd files, links, and the two ways to store the images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import Data, load_data
from nas.data.store import FileStore
from search_spaces.errors import InputError


def write(path: Path, seed: int, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def folder(root: Path, classes: tuple[str, ...] = ("ant", "bee"), count: int = 10, offset: int = 0) -> Path:
    for k, name in enumerate(classes):
        for i in range(count):
            write(root / name / f"{i:03}.png", offset + 1000 * k + i)
    return root


def load(root: Path, **options: object) -> Data:
    return load_data(f"imagefolder:{root}", image_size=16, **options)  # type: ignore[arg-type]


def test_one_folder_is_split_three_ways(tmp_path: Path) -> None:
    data = load_data(folder(tmp_path / "insects"), image_size=16)
    assert data.name == "insects"
    assert data.classes == ("ant", "bee")
    assert data.splits.sizes == {"train": 12, "validation": 4, "test": 4}
    assert data.channels == 3
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.statistics_from == "ImageNet"
    assert load_data(f"imagefolder:{tmp_path / 'insects'}").image_size == 224


def test_train_val_and_test_folders(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "val", count=3, offset=100)
    lone = load(tmp_path)
    assert lone.splits.sizes == {"train": 16, "validation": 4, "test": 6}
    assert "val/ is the test part; validation is carved from train/" in lone.describe()["notes"]
    folder(tmp_path / "test", count=2, offset=200)
    assert load(tmp_path).splits.sizes == {"train": 20, "validation": 6, "test": 4}
    with pytest.raises(InputError, match="has a test part of its own"):
        load(tmp_path, test=0.1)


def test_a_flat_test_folder_is_passed_over(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "val", count=3)
    write(tmp_path / "test" / "unlabelled.png", 7)
    assert load(tmp_path).splits.sizes["test"] == 6


def test_a_class_called_train(tmp_path: Path) -> None:
    folder(tmp_path, ("train", "tram"))
    assert load(tmp_path).classes == ("train", "tram")


def test_hidden_files_capitals_other_files_and_folders_inside(tmp_path: Path) -> None:
    folder(tmp_path, count=9)
    write(tmp_path / "ant" / "deep" / "er" / "X.PNG", 77)
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "ant" / "._000.png").write_bytes(b"\0")
    (tmp_path / "ant" / "Thumbs.db").write_bytes(b"\0")
    (tmp_path / ".git" / "x").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "ant").mkdir(parents=True)
    os.mkfifo(tmp_path / "bee" / "pipe.png")
    data = load(tmp_path)
    assert data.classes == ("ant", "bee")
    assert data.report.found == 19
    assert data.report.other_files == 2
    assert data.skipped == ()


def test_links_in_circles(tmp_path: Path) -> None:
    folder(tmp_path / "set", count=100)
    (tmp_path / "set" / "ant" / "loop").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "set" / "bee" / "self.png").symlink_to("self.png")
    (tmp_path / "linked").symlink_to(tmp_path / "set", target_is_directory=True)
    data = load(tmp_path / "linked")
    # "ant/loop" leads to the bees once, and to nothing a second time
    assert [s.name for s in data.skipped] == ["ant/loop/bee/self.png", "bee/self.png"]
    assert data.report.found == 100 + 100 + 100 + 2


def damage_text(path: Path) -> None:
    path.write_text("not an image")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("storage", ["memory", "files"])
@pytest.mark.parametrize("damage", [damage_text, damage_empty, damage_truncated])
def test_a_few_bad_images_are_skipped_and_named(
    tmp_path: Path, storage: str, damage: Callable[[Path], None]
) -> None:
    folder(tmp_path, count=10)
    damage(tmp_path / "bee" / "004.png")
    data = load(tmp_path, storage=storage)
    assert [s.name for s in data.skipped] == ["bee/004.png"]
    assert sum(data.splits.sizes.values()) == 19
    described = json.loads(json.dumps(data.describe()))
    assert described["skipped"][0]["name"] == "bee/004.png"
    assert described["skipped"][0]["reason"]
    assert data.report.text().startswith("bee/004.png\t")
    # The images that are left keep their own labels.
    seen = sum(len(y) for x, y in data.train_batches(4, 0).epoch(0))
    assert seen == len(data.train) // 4 * 4


@pytest.mark.parametrize("storage", ["memory", "files"])
def test_many_bad_images_stop(tmp_path: Path, storage: str) -> None:
    folder(tmp_path)
    for i in range(4):
        damage_text(tmp_path / "bee" / f"{i:03}.png")
    with pytest.raises(
        InputError, match=r"4 of the 20 images .*bee/000.png \(not an image\).* and 1 more"
    ) as caught:
        load(tmp_path, storage=storage)
    assert "\n" not in str(caught.value)


def test_damage_that_no_header_shows_is_found_while_reading(tmp_path: Path) -> None:
    folder(tmp_path)
    path = tmp_path / "ant" / "003.png"
    content = bytearray(path.read_bytes())
    content[41:60] = b"\xff" * 19  # where the compressed pixels begin; header and end are whole
    path.write_bytes(content)
    data = load(tmp_path, storage="files")
    assert data.skipped == ()
    total = sum(
        len(y)
        for batches in (
            data.train_batches(4, 0, augment=False).epoch(0),
            data.validation_batches(4),
            data.test_batches(4),
        )
        for _, y in batches
    )
    assert [s.name for s in data.skipped] == ["ant/003.png"]
    assert data.describe()["skipped"][0]["name"] == "ant/003.png"
    assert total == 19


def test_sixteen_bit_cmyk_and_palette_files_are_used(tmp_path: Path) -> None:
    folder(tmp_path)
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(tmp_path / "ant" / "deep.png")
    Image.new("CMYK", (9, 9), (0, 0, 0, 0)).save(tmp_path / "ant" / "print.jpg")
    Image.new("P", (9, 9)).save(tmp_path / "ant" / "old.gif")
    data = load(tmp_path)
    assert data.skipped == ()
    assert data.report.found == 23


def test_memory_and_files_give_the_same_images(tmp_path: Path) -> None:
    folder(tmp_path, count=9)
    memory, files = (load(tmp_path, storage=s) for s in ("memory", "files"))
    assert memory.store.in_memory
    assert isinstance(files.store, FileStore)
    assert memory.fingerprint == files.fingerprint
    for augment in (False, True):  # small pictures are changed as a batch, wherever they come from
        pairs = zip(
            memory.train_batches(4, 3, augment).epoch(1),
            files.train_batches(4, 3, augment).epoch(1),
            strict=True,
        )
        for (x, y), (other_x, other_y) in pairs:
            assert torch.equal(x, other_x)
            assert torch.equal(y, other_y)
    for a, b in zip(memory.calibration_batches(8, 4), files.calibration_batches(8, 4), strict=True):
        assert torch.equal(a[0], b[0])


@pytest.mark.parametrize("storage", ["memory", "files"])
def test_photographs_are_changed_one_by_one_whatever_the_workers(tmp_path: Path, storage: str) -> None:
    pytest.importorskip("timm")
    folder(tmp_path, count=6)
    runs = []
    for workers in (0, 2):
        data = load_data(f"imagefolder:{tmp_path}", image_size=96, storage=storage, workers=workers)
        assert data.describe()["transforms"]["train"]["kind"] == "picture"
        batches = data.train_batches(4, 5)
        runs.append([x for x, _ in batches.epoch(2)])
        tail = [x for x, _ in batches.epoch(2, start=1)]
        assert all(torch.equal(a, b) for a, b in zip(runs[-1][1:], tail, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    plain = [x for x, _ in data.train_batches(4, 5, augment=False).epoch(2)]
    assert not torch.equal(plain[0], runs[0][0])


def test_errors_name_the_folder_and_the_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^no folder .*nowhere'$"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no class folders; expected <class>/<image>"):
        load(tmp_path)
    folder(tmp_path, ("ant",))
    with pytest.raises(InputError, match="one class folder only"):
        load(tmp_path)
    (tmp_path / "wasp").mkdir()
    with pytest.raises(InputError, match="wasp' holds no images"):
        load(tmp_path)
    (tmp_path / "wasp" / "a.png").write_text("no")
    with pytest.raises(InputError, match="class 'wasp' has no readable training image"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"is a file; imagefolder needs a folder"):
        load(tmp_path / "ant" / "000.png")


def test_a_test_class_that_training_lacks(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "test", ("ant", "wasp"))
    with pytest.raises(InputError, match="wasp' is a class that the train folder does not have"):
        load(tmp_path)


def test_the_fingerprint_follows_files_and_seed(tmp_path: Path) -> None:
    folder(tmp_path)
    first = load(tmp_path).fingerprint
    assert load(tmp_path).fingerprint == first
    assert load(tmp_path, seed=1).fingerprint != first
    write(tmp_path / "ant" / "new.png", 5)
    assert load(tmp_path).fingerprint != first


def test_odd_file_names_make_one_line(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in (b"a\nb.png", b"\xff\xfe.png"):
        (tmp_path / "ant" / os.fsdecode(name)).write_text("no")
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_what_does_not_fit_in_memory_stays_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    assert load(tmp_path).store.in_memory
    monkeypatch.setattr("nas.data.load.MEMORY_LIMIT_BYTES", 20 * 3 * 16 * 16 - 1)
    assert not load(tmp_path).store.in_memory


def test_an_image_damaged_later_leaves_its_ranks_part_empty_and_the_others_in_step(tmp_path: Path) -> None:
    from supernets.distributed import Ranks

    folder(tmp_path, count=10)
    data = load(tmp_path, storage="files")
    batches = data.train_batches(2, 0, augment=False)
    damage_truncated(Path(tmp_path / data.store.pictures.name(int(data.train[0]))))
    parts = [list(batches.shards(0, 0, Ranks(rank, 2))) for rank in range(2)]
    assert [len(part) for part in parts] == [batches.steps] * 2
    found = [len(part.y) for one in parts for part in one]
    assert sorted(found) == [0] + [1] * (2 * batches.steps - 1)
    assert {(part.first, part.total) for part in parts[1]} == {(1, 2)}
    assert all(len(part.x) == len(part.y) for one in parts for part in one)
