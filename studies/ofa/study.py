"""Once-for-All on Fashion-MNIST: progressive shrinking against joint sampling, and against training alone.

    python -m studies.ofa.study                    # about 8 minutes on one core
    python -m studies.ofa.study --setting gpu --seed 1

The eight networks of the paper's ablation: least or most blocks, least or most expansion, least or most
kernel, the same in all stages, at the largest resolution. Progressive shrinking and joint sampling do the
same number of passes through a network per image; the teacher's passes come on top. Joint sampling draws one
network per step, so it makes more steps: four per step, the other fair way, is there as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from nas.stand_alone import alone_recipe, only
from nas.trained import calibration
from search_spaces import Arch, SearchSpace, mobilenet_v3
from studies.experiment import (
    Row,
    arguments,
    fashion,
    mean_and_spread,
    results_folder,
    save,
    trained,
    work_folder,
)
from supernets.evaluate import evaluate
from supernets.policies.uniform import Uniform
from supernets.recipe import Recipe
from supernets.recipes import progressive_shrinking, uniform
from supernets.schemes import KernelTransform
from supernets.supernet import Supernet
from supernets.teacher import Frozen, load_frozen


@dataclass(frozen=True)
class Setting:
    """How large the study is."""

    images: int  # for training and validation
    test: int
    image_size: int
    epochs: int  # of progressive shrinking, all stages together
    alone: int  # of each network alone
    resolutions: tuple[int, ...]
    depths: tuple[int, ...] = (1, 2, 3)
    batch: int = 64
    lr: float = 0.1


SETTINGS: Mapping[str, Setting] = {
    "smoke": Setting(400, 200, 8, 6, 1, (8,), (1, 2)),
    "small": Setting(2500, 2000, 16, 44, 14, (12, 16)),
    "gpu": Setting(30_000, 10_000, 28, 66, 30, (20, 24, 28), (2, 3, 4), batch=256),
}
SHRINKING, ONE, FOUR, ALONE, TEACHER = "progressive shrinking", "joint, 1", "joint, 4", "alone", "teacher"


def make_space(setting: Setting) -> SearchSpace:
    """Depth, kernel and expansion per block, and the resolution."""
    return mobilenet_v3.space(
        classes=10,
        channels=1,
        image_size=setting.image_size,
        depths=setting.depths,
        resolutions=setting.resolutions,
    )


def networks(space: SearchSpace) -> dict[str, Arch]:
    """The eight, by name: D is the depth, W the expansion, K the kernel of all blocks."""
    options = {choice.name.rpartition(".")[2]: choice.options for choice in space.choices}
    found = {}
    for ends in product((0, -1), repeat=3):
        wanted = {kind: options[kind][end] for kind, end in zip(("depth", "expand", "kernel"), ends)}
        full = {c.name: wanted.get(c.name.rpartition(".")[2], c.options[-1]) for c in space.choices}
        name = f"D{wanted['depth']}-W{wanted['expand']}-K{wanted['kernel']}"
        found[name] = space.arch(full)
    return found


def recipes(setting: Setting, space: SearchSpace) -> dict[str, Recipe]:
    """Progressive shrinking, and joint sampling with as many passes through a network."""
    same: dict[str, Any] = {"lr": setting.lr, "optimizer": "sgd", "weight_decay": 5e-4}
    shrinking = progressive_shrinking.recipe(epochs=setting.epochs, **same).fitted(space)
    passes = 0
    for phase in shrinking.phases:
        assert isinstance(phase.policy, Uniform)
        passes += phase.policy.n * phase.epochs
    joint = {
        name: uniform.recipe(epochs=max(1, round(passes / n)), n=n, clip_norm=0.0, **same)
        for name, n in ((ONE, 1), (FOUR, 4))
    }
    scheme = shrinking.scheme  # the kernel matrices are not what is compared
    return {SHRINKING: shrinking} | {
        name: Recipe(recipe.name, recipe.phases, scheme) for name, recipe in joint.items()
    }


def main() -> None:
    given = arguments(__doc__, SETTINGS)
    setting: Setting = SETTINGS[given.setting]
    work = work_folder(__file__, given)
    data = fashion(setting.images, setting.test, setting.image_size, given.work)
    space = make_space(setting)
    eight = networks(space)
    counted = space.costs(space.index(eight.values()))
    batches = data.train_batches(setting.batch, given.seed)
    test = list(data.test_batches(500))
    images = [x.to(given.device) for x in calibration(data)]
    made = recipes(setting, space)

    def fit(name: str, of: SearchSpace, recipe: Recipe) -> tuple[Supernet, float]:
        return trained(of, recipe, batches, folder=work / name, seed=given.seed, device=given.device)

    def row(method: str, name: str, accuracy: float, seconds: float) -> Row:
        i = list(eight).index(name)
        costs = {"params": int(counted.params[i]), "macs": int(counted.macs[i])}
        return {"method": method, "network": name, **costs, "accuracy": accuracy, "train_seconds": seconds}

    rows: list[Row] = []
    for method, recipe in made.items():
        supernet, seconds = fit(method.replace(", ", "-").replace(" ", "_"), space, recipe)
        accuracy = evaluate(supernet, list(eight.values()), test, images)
        for name, value in zip(eight, accuracy, strict=True):
            rows.append(row(method, name, float(value), round(seconds, 1)))
    largest = next(name for name, arch in eight.items() if arch == space.largest)
    teacher = frozen_teacher(work / "progressive_shrinking", space, given.device)
    rows.append(row(TEACHER, largest, accuracy_of(teacher, test, given.device), 0.0))
    for name, arch in eight.items():
        one = only(space, arch)
        net, seconds = fit(f"alone-{name}", one, alone_recipe(made[SHRINKING], setting.alone))
        accuracy = evaluate(net, [one.largest], test, images)
        rows.append(row(ALONE, name, float(accuracy[0]), round(seconds, 1)))
    folder = results_folder(__file__, given)
    every = save(folder, given.setting, given.seed, rows)
    report(every)
    plot(every, folder)


def frozen_teacher(run: Path, space: SearchSpace, device: str) -> Frozen:
    """The network of the first stage, as it taught the others."""
    (path,) = run.glob("teacher-*.safetensors")
    return load_frozen(path, Supernet(space, KernelTransform()).to(device))


def accuracy_of(teacher: Frozen, test: list[tuple[torch.Tensor, torch.Tensor]], device: str) -> float:
    """Its share of right answers, by the route that its pupils asked it."""
    with torch.inference_mode():
        right = sum(int((teacher(x.to(device)).argmax(1) == y.to(device)).sum()) for x, y in test)
    return right / sum(len(y) for _, y in test)


def report(rows: list[Row]) -> None:
    """The answers, as a table for README.md."""
    seeds = sorted({row["seed"] for row in rows})
    at = {(r["method"], r["network"], r["seed"]): float(r["accuracy"]) for r in rows}
    methods = [SHRINKING, ONE, FOUR, ALONE]
    names = list(dict.fromkeys(row["network"] for row in rows))
    print("| network | " + " | ".join(methods) + " |")
    print("|---" * (len(methods) + 1) + "|")
    for name in names:
        cells = (mean_and_spread(at[method, name, s] for s in seeds) for method in methods)
        print(f"| {name} | " + " | ".join(cells) + " |")
    means = {m: [sum(at[m, n, s] for n in names) / len(names) for s in seeds] for m in methods}
    print("| mean | " + " | ".join(mean_and_spread(means[m]) for m in methods) + " |")
    for other in methods[1:]:
        gain = mean_and_spread(100 * (a - b) for a, b in zip(means[SHRINKING], means[other], strict=True))
        print(f"progressive shrinking is {gain} points above {other!r} on average")
    largest = next(r["network"] for r in rows if r["method"] == TEACHER)
    change = mean_and_spread(100 * (at[SHRINKING, largest, s] - at[TEACHER, largest, s]) for s in seeds)
    print(f"the largest network after all stages is {change} points from the teacher it came from")


def plot(rows: list[Row], folder: Path) -> None:
    """Accuracy of the eight networks by method, in order of multiply-adds."""
    methods = [SHRINKING, ONE, FOUR, ALONE]
    macs = {row["network"]: int(row["macs"]) for row in rows}
    names = sorted(macs, key=macs.__getitem__)
    sheet = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    axes = sheet.add_subplot()
    for shift, (method, marker) in enumerate(zip(methods, "os^x", strict=True)):
        mine = [row for row in rows if row["method"] == method]
        x = [names.index(row["network"]) + 0.12 * (shift - 1.5) for row in mine]
        axes.scatter(x, [100 * float(row["accuracy"]) for row in mine], marker=marker, label=method)
    for row in rows:
        if row["method"] == TEACHER:
            axes.axhline(100 * float(row["accuracy"]), color="#9AA3AF", linewidth=1, zorder=0)
    axes.set_xticks(range(len(names)), [f"{name}\n{macs[name] / 1e6:.2f} M" for name in names], fontsize=8)
    axes.set_xlabel("network, multiply-adds")
    axes.set_ylabel("test accuracy, % (line: the teacher)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3, axis="y")
    sheet.savefig(folder / "plot.png")


if __name__ == "__main__":
    main()
