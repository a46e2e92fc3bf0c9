"""Can a supernet's ranking be trusted? Kendall's tau against training alone, for five ways to train it.

    python -m studies.rank_fidelity.study                # about 10 minutes on one core
    python -m studies.rank_fidelity.study --setting gpu --seed 1

What `nas audit` does for one supernet, for one per method, on Fashion-MNIST. The sandwich, uniform sampling,
progressive shrinking and SortedNet are asked about the same networks, spread over the multiply-adds of
SortedNet's grid (members of which all four have trained or can draw); MatFormer trains feed-forward widths
only, so it is asked about networks whose widths differ by layer. Every supernet gets the same number of
passes through a network; each network alone gets the same epochs from the same settings, and is trained once
for all methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nas.audit import Audit, audit
from nas.cost_spread import spread_over_cost
from nas.stand_alone import StandAlone, alone_recipe
from search_spaces import Arch, SearchSpace, vit
from search_spaces.nesting import grid
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
from supernets.recipe import Recipe
from supernets.recipes import matformer, progressive_shrinking, sandwich, sortednet, uniform


@dataclass(frozen=True)
class Setting:
    """How large the study is."""

    images: int  # for training and validation
    epochs: int  # of the supernets that train one network per step; a multiple of 4
    alone: int  # epochs of a network alone
    networks: int  # per method
    patch: int
    embed_dims: tuple[int, ...]
    batch: int = 64
    lr: float = 2e-3


SETTINGS: Mapping[str, Setting] = {
    "smoke": Setting(400, 8, 1, 4, 14, (8, 16)),
    "small": Setting(4000, 24, 8, 12, 7, (16, 32, 64)),
    "gpu": Setting(60_000, 80, 40, 16, 4, (64, 128, 192)),
}


def make_space(setting: Setting) -> SearchSpace:
    """Depth, embedding, heads and feed-forward widths."""
    return vit.space(
        classes=10,
        channels=1,
        image_size=28,
        patch=setting.patch,
        depths=(1, 2, 3, 4),
        embed_dims=setting.embed_dims,
        heads=(2, 4),
        head_dim=setting.embed_dims[-1] // 4,
        mlp_ratios=(0.5, 1.0, 2.0, 4.0),
    )


def recipes(setting: Setting) -> dict[str, Recipe]:
    """The methods, at about the same number of passes through a network."""
    lr, epochs = setting.lr, setting.epochs
    same = {"lr": lr, "optimizer": "adamw", "weight_decay": 0.05, "clip_norm": 1.0}
    # Progressive shrinking runs 1, 1, 2, 2, 4 and 4 networks per step in stages of 30, 10, 3, 10, 3 and 10.
    shrinking = max(6, round(epochs * 66 / (30 + 10 + 6 + 20 + 12 + 40)))
    return {
        "sandwich": sandwich.recipe(epochs=epochs // 4, n=4, **same),  # type: ignore[arg-type]
        "uniform": uniform.recipe(epochs=epochs, **same),  # type: ignore[arg-type]
        "progressive_shrinking": progressive_shrinking.recipe(epochs=shrinking, **same),  # type: ignore[arg-type]
        "matformer": matformer.recipe(epochs=epochs, **same),  # type: ignore[arg-type]
        "sortednet": sortednet.recipe(epochs=epochs, n=4, **same),  # type: ignore[arg-type]
    }


def subnets(method: str, space: SearchSpace, count: int, seed: int) -> list[Arch]:
    """The networks that a method is asked about, in order of multiply-adds."""
    if method == "matformer":
        widths = {c.name: 1 for c in space.choices if not c.name.endswith("mlp_ratio")}
        return spread_over_cost(space.restrict(widths), count, seed)
    members = grid(space)
    macs = space.costs(space.index(members)).macs
    targets = np.geomspace(macs.min(), macs.max(), count)
    chosen: list[int] = []
    for target in targets:
        left = [i for i in range(len(members)) if i not in chosen]
        chosen.append(min(left, key=lambda i: abs(np.log(macs[i] / target))))
    return [members[i] for i in sorted(chosen, key=lambda i: macs[i])]


def main() -> None:
    given = arguments(__doc__, SETTINGS)
    setting: Setting = SETTINGS[given.setting]
    work = work_folder(__file__, given)
    data = fashion(setting.images, 1000, 28, given.work)
    space = make_space(setting)
    made = recipes(setting)
    alone = StandAlone(
        space,
        data,
        alone_recipe(made["uniform"], setting.alone),
        work / "alone",
        batch_size=setting.batch,
        seed=given.seed,
        device=given.device,
    )
    rows: list[Row] = []
    for method, recipe in made.items():
        size = setting.batch // 4 if method == "sortednet" else setting.batch
        supernet, seconds = trained(
            space,
            recipe,
            data.train_batches(size, given.seed),
            folder=work / method,
            seed=given.seed,
            device=given.device,
        )
        archs = subnets(method, space, setting.networks, given.seed)
        found = audit(supernet, archs, alone)
        rows += table(method, found, seconds)
        print(f"  {method}: tau {found.fidelity.tau:.2f}", flush=True)
    folder = results_folder(__file__, given)
    every = save(folder, given.setting, given.seed, rows)
    report(every)
    plot(every, folder)


def table(method: str, found: Audit, seconds: float) -> list[Row]:
    """A row per network, with the method's figures on each."""
    f = found.fidelity
    return [
        {
            "method": method,
            "params": int(found.params[i]),
            "macs": int(found.macs[i]),
            "supernet": float(found.shared[i]),
            "alone": float(found.alone[i]),
            "tau": f.tau,
            "tau_low": f.low,
            "tau_high": f.high,
            "tau_params": f.tau_params,
            "tau_macs": f.tau_macs,
            "mean_gap": f.gap,
            "regret": f.regret,
            "monotone": f.monotone,
            "train_seconds": round(seconds, 1),
        }
        for i in range(len(found.archs))
    ]


def report(rows: list[Row]) -> None:
    """The answers, as one would put them into README.md."""
    for method in dict.fromkeys(row["method"] for row in rows):
        first = {row["seed"]: row for row in rows if row["method"] == method}  # figures are alike on all rows
        shown = {
            name: mean_and_spread(float(row[name]) for row in first.values())
            for name in ("tau", "tau_low", "tau_high", "tau_params", "tau_macs", "mean_gap", "regret")
        }
        print(
            f"{method:22} tau {shown['tau']} ({shown['tau_low']} to {shown['tau_high']}); by parameters "
            f"{shown['tau_params']}, by multiply-adds {shown['tau_macs']}; gap {shown['mean_gap']}, regret "
            f"{shown['regret']}"
        )


def plot(rows: list[Row], folder: Path) -> None:
    """Accuracy alone over accuracy in the supernet, a panel per method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    sheet = Figure(figsize=(3.2 * len(methods), 3.6), dpi=100, layout="constrained")
    for i, method in enumerate(methods, start=1):
        axes = sheet.add_subplot(1, len(methods), i)
        mine = [row for row in rows if row["method"] == method]
        x, y = ([float(r[name]) for r in mine] for name in ("supernet", "alone"))
        axes.scatter(x, y, s=24, c=np.log10([int(r["macs"]) for r in mine]))
        ends = [min(x + y), max(x + y)]
        axes.plot(ends, ends, color="#9AA3AF", linewidth=1)
        taus = mean_and_spread({r["seed"]: float(r["tau"]) for r in mine}.values())
        axes.set_title(f"{method}\ntau {taus}", fontsize=10)
        axes.set_xlabel("in the supernet")
        if i == 1:
            axes.set_ylabel("alone")
    sheet.savefig(folder / "plot.png")


if __name__ == "__main__":
    main()
