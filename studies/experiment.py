"""What the studies of methods share: where data lies, trainings that go on where they stopped, and results.

Each study is `python -m studies.NAME.study` from the root of the checkout; `--setting` names one of its
sizes, `--seed` a repetition. Rows of another seed or setting that results.csv holds already are kept, so
repetitions add up.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from nas.data import load_data
from predictors.machine import cpu_title
from search_spaces import SearchSpace
from supernets import Supernet
from supernets.files import atomic_write
from supernets.recipe import Recipe
from supernets.teacher import Teacher
from supernets.trainer import train

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]


def arguments(doc: str, settings: Iterable[str]) -> argparse.Namespace:
    """--setting, --seed, --device and --work of the command line."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--setting", choices=list(settings), default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "studies", help="checkpoints")
    return parser.parse_args()


def data_file(name: str) -> Path:
    """A file of the folder of real data: $NAS_SHARED_DATA, or ../shared/data beside the checkout.

    Ends the program with the reason where it is not there.
    """
    folder = Path(os.environ.get("NAS_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / name).is_file():
        skip(f"there is no {folder / name}; set NAS_SHARED_DATA to the folder of data")
    return folder / name


def skip(reason: str) -> NoReturn:
    """Ends the program without a result."""
    raise SystemExit(f"skipped: {reason}")


def fashion(train_images: int, test_images: int, image_size: int, work: Path) -> Any:
    """The first images of Fashion-MNIST; a fifth of those for training is for validation."""
    path = work / f"fashion-{train_images}-{test_images}.npz"
    if not path.is_file():
        parts = {}
        for part, file, count in (("train", "train", train_images), ("test", "t10k", test_images)):
            images = gzip.decompress(data_file(f"fashion-mnist/{file}-images-idx3-ubyte.gz").read_bytes())
            labels = gzip.decompress(data_file(f"fashion-mnist/{file}-labels-idx1-ubyte.gz").read_bytes())
            x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
            parts |= {f"x_{part}": x[:count], f"y_{part}": np.frombuffer(labels, np.uint8, offset=8)[:count]}
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, lambda file: np.savez_compressed(file, **parts))
    return load_data(f"npz:{path}", image_size=image_size)


def trained(
    space: SearchSpace,
    recipe: Recipe,
    batches: Any,
    *,
    folder: Path,
    seed: int,
    device: str,
    supernet: Supernet | None = None,
    teacher: Teacher | None = None,
) -> tuple[Supernet, float]:
    """A supernet trained by the recipe, and the seconds that took; from `folder` if it was before.

    supernet: with its first values, in place of a fresh one.
    """
    from nas.resolve import resolve

    supernet = supernet or Supernet(space, resolve("scheme", recipe.scheme)(), seed=seed)
    start = time.perf_counter()
    train(supernet, recipe, batches, folder=folder, seed=seed, device=device, teacher=teacher)
    seconds = time.perf_counter() - start
    print(f"  {folder.name}: {recipe.epochs} epochs, {seconds:.0f} s", flush=True)
    return supernet.eval(), seconds


def work_folder(script: str, given: argparse.Namespace) -> Path:
    """Where the trainings of this study, setting and seed go on from."""
    return Path(given.work) / Path(script).resolve().parent.name / f"{given.setting}-{given.seed}"


def results_folder(script: str, given: argparse.Namespace) -> Path:
    """Where results go: beside the script, but those of the smoke test, which mean nothing, to its work."""
    folder = Path(script).parent
    if given.setting == "smoke":
        folder = given.work / folder.name
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def save(folder: Path, setting: str, seed: int, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Puts the rows of this setting and seed into results.csv of `folder`; returns all of its setting."""
    path = folder / "results.csv"
    circumstances = {
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_title(),
        "torch": version("torch"),
    }
    mine = [{"setting": setting, "seed": str(seed), **row, **circumstances} for row in rows]
    kept: list[Row] = []
    if path.is_file():
        with path.open(newline="") as file:
            kept = [r for r in csv.DictReader(file) if (r["setting"], r["seed"]) != (setting, str(seed))]
    every = [*kept, *mine]
    columns = list(dict.fromkeys(name for row in every for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(every)
    return [row for row in every if row["setting"] == setting]


def mean_and_spread(values: Iterable[float]) -> str:
    """`0.812 +- 0.004`: the mean and the standard deviation over the seeds, where there are several."""
    found = np.array(list(values), dtype=float)
    spread = f" +- {found.std(ddof=1):.3f}" if len(found) > 1 else ""
    return f"{found.mean():.3f}{spread}"
