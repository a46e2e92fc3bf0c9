"""SortedNet on Fashion-MNIST: 160 nested transformers in one run, against the sandwich and uniform sampling.

    python -m studies.sortednet.study                    # about 10 minutes on one core
    python -m studies.sortednet.study --setting gpu --seed 1

The list is the grid of 4 depths, 4 embeddings, 2 numbers of heads and 5 feed-forward widths. All methods do
the same number of passes through a network per image and epoch: SortedNet and uniform sampling four epochs
for each one of the sandwich, whose steps train four networks. The full network alone gets the epochs of
SortedNet. Each method's score is the share of the full network's test accuracy that the 160 keep on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nas.rank_fidelity import kendall_tau, monotone_share
from nas.stand_alone import alone_recipe, only
from nas.trained import calibration
from search_spaces import Arch, SearchSpace, vit
from search_spaces.nesting import grid, largest_within
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
from supernets import Supernet
from supernets.evaluate import evaluate
from supernets.recipe import Recipe
from supernets.recipes import sandwich, sortednet, uniform


@dataclass(frozen=True)
class Setting:
    """How large the study is."""

    images: int  # for training and validation
    test: int
    epochs: int  # of SortedNet; a multiple of 4
    patch: int
    embed_dims: tuple[int, int, int, int]
    batch: int = 32  # images per network and pass
    lr: float = 2e-3


SETTINGS: Mapping[str, Setting] = {
    "smoke": Setting(400, 200, 4, 14, (8, 16, 24, 32)),
    "small": Setting(6000, 2000, 40, 7, (16, 32, 48, 64)),
    "gpu": Setting(60_000, 10_000, 80, 4, (48, 96, 144, 192)),
}


def make_space(setting: Setting) -> SearchSpace:
    """160 nested members, and the mixtures of their blocks, which SortedNet does not train."""
    return vit.space(
        classes=10,
        channels=1,
        image_size=28,
        patch=setting.patch,
        depths=(1, 2, 3, 4),
        embed_dims=setting.embed_dims,
        heads=(2, 4),
        head_dim=setting.embed_dims[-1] // 4,
        mlp_ratios=(0.5, 1.0, 2.0, 3.0, 4.0),
    )


def recipes(setting: Setting) -> dict[str, Recipe]:
    """The same passes for each: 4 micro-batches of one network, or one batch of 4."""
    same = {"lr": setting.lr, "optimizer": "adamw", "weight_decay": 0.05, "clip_norm": 1.0}
    return {
        "sortednet": sortednet.recipe(epochs=setting.epochs, n=4, **same),  # type: ignore[arg-type]
        "uniform": uniform.recipe(epochs=setting.epochs, n=1, accumulate=4, **same),  # type: ignore[arg-type]
        "sandwich": sandwich.recipe(epochs=setting.epochs // 4, n=4, accumulate=4, **same),  # type: ignore[arg-type]
    }


def main() -> None:
    given = arguments(__doc__, SETTINGS)
    setting: Setting = SETTINGS[given.setting]
    work = work_folder(__file__, given)
    data = fashion(setting.images, setting.test, 28, given.work)
    batches = data.train_batches(setting.batch, given.seed)
    test = list(data.test_batches(data.evaluation_batch))
    space = make_space(setting)
    members = grid(space)
    assert len(members) == 160
    counted = space.costs(space.index(members))

    def fit(name: str, of: SearchSpace, recipe: Recipe) -> tuple[Supernet, float]:
        return trained(of, recipe, batches, folder=work / name, seed=given.seed, device=given.device)

    one = only(space, space.largest)
    full, seconds = fit("full", one, alone_recipe(recipes(setting)["sortednet"]))
    reference = float(evaluate(full, [one.largest], test, calibration(data))[0])
    rows: list[Row] = [
        {
            "method": "full network alone",
            "member": len(members) - 1,
            "params": int(counted.params[-1]),
            "macs": int(counted.macs[-1]),
            "accuracy": reference,
            "train_seconds": round(seconds, 1),
        }
    ]
    for method, recipe in recipes(setting).items():
        supernet, seconds = fit(method, space, recipe)
        accuracy = evaluate(supernet, members, test, calibration(data))
        rows += [
            {
                "method": method,
                "member": i,
                "params": int(counted.params[i]),
                "macs": int(counted.macs[i]),
                "accuracy": float(accuracy[i]),
                "train_seconds": round(seconds, 1),
            }
            for i in range(len(members))
        ]
    folder = results_folder(__file__, given)
    every = save(folder, given.setting, given.seed, rows)
    report(every, space, members)
    plot(every, folder)


def report(rows: list[Row], space: SearchSpace, members: tuple[Arch, ...]) -> None:
    """The answers, as one would put them into README.md."""
    seeds = sorted({row["seed"] for row in rows})

    def of(method: str, seed: str) -> list[Row]:
        found = [r for r in rows if (r["method"], r["seed"]) == (method, seed)]
        return sorted(found, key=lambda r: int(r["member"]))

    full = {seed: float(of("full network alone", seed)[0]["accuracy"]) for seed in seeds}
    print(f"full network alone: accuracy {mean_and_spread(full.values())}")
    for method in dict.fromkeys(row["method"] for row in rows):
        if method == "full network alone":
            continue
        accuracy = {s: np.array([float(r["accuracy"]) for r in of(method, s)]) for s in seeds}
        macs = np.array([int(r["macs"]) for r in of(method, seeds[0])])
        kept = mean_and_spread(accuracy[s].mean() / full[s] for s in seeds)
        least = mean_and_spread(accuracy[s].min() / full[s] for s in seeds)
        largest = mean_and_spread(accuracy[s][-1] / full[s] for s in seeds)
        order = mean_and_spread(kendall_tau(macs, accuracy[s]) for s in seeds)
        steps = mean_and_spread(monotone_share(macs, accuracy[s]) for s in seeds)
        print(
            f"{method:10} keeps {kept} of it on average over {len(macs)}, the largest {largest}, the worst "
            f"{least}; Kendall tau of accuracy with multiply-adds {order}, steps up that do not lose {steps}"
        )
    costs = space.costs(space.index(members)).params
    for budget in np.quantile(costs, [0.25, 0.5, 0.75]):
        chosen = members.index(largest_within(space, members, float(budget)))
        found = mean_and_spread(float(of("sortednet", s)[chosen]["accuracy"]) for s in seeds)
        best = mean_and_spread(
            max(float(r["accuracy"]) for r in of("sortednet", s) if int(r["params"]) <= budget) for s in seeds
        )
        print(f"lookup within {int(budget):,} parameters: {found}; the best member within them has {best}")


def plot(rows: list[Row], folder: Path) -> None:
    """Accuracy over multiply-adds, a dot per member."""
    sheet = Figure(figsize=(8, 5.5), dpi=100, layout="constrained")
    axes = sheet.add_subplot()
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        star = method == "full network alone"
        axes.scatter(
            [int(r["macs"]) for r in mine],
            [float(r["accuracy"]) for r in mine],
            s=180 if star else 16,
            marker="*" if star else "o",
            alpha=1.0 if star else 0.6,
            label=method,
        )
    axes.set_xscale("log")
    axes.set_xlabel("multiply-adds")
    axes.set_ylabel("test accuracy")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    sheet.savefig(folder / "plot.png")


if __name__ == "__main__":
    main()
