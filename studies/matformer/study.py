"""MatFormer on bytes of Shakespeare: four nested language models against four trained separately.

    python -m studies.matformer.study                    # about 10 minutes on one core
    python -m studies.matformer.study --setting gpu --seed 1

Four granularities of the feed-forward layers, S to XL. One MatFormer is trained on 4 T tokens, a random
granularity per step, so each granularity gets T. Against it:

- `separate`: each size alone on T tokens. Equal tokens per granularity, and, since the four together cost
  what the MatFormer did, equal total compute.
- `separate, 4 T`: a size alone on all 4 T tokens, which is equal tokens in all.
- `quarter`: a MatFormer on T tokens in all, about the compute of one model of middling size.

Then: do the networks between the granularities (minimum slope) lie on or below the line between their
neighbours, and do small models agree with their XL more often than separate ones do with theirs?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nas.data import load_data
from nas.stand_alone import alone_recipe, only
from search_spaces import Arch, SearchSpace, gpt
from search_spaces.minimum_slope import ladder
from search_spaces.nesting import granularity
from studies.experiment import (
    Row,
    arguments,
    data_file,
    mean_and_spread,
    results_folder,
    save,
    trained,
    work_folder,
)
from supernets import Supernet
from supernets.consistency import consistency
from supernets.evaluate import scores
from supernets.recipe import Recipe
from supernets.recipes import matformer

SIZES = "S", "M", "L", "XL"


@dataclass(frozen=True)
class Setting:
    """How large the study is."""

    depth: int
    dim: int
    heads: int
    context: int  # bytes
    batch: int  # windows
    epochs: int  # T, in passes over the training text
    long: tuple[str, ...]  # sizes that are trained alone on 4 T as well
    lr: float = 3e-3
    share: float = 1.0  # of the text


SETTINGS: Mapping[str, Setting] = {
    "smoke": Setting(2, 16, 2, 32, 16, 1, ("XL",), share=0.02),
    "small": Setting(3, 64, 2, 64, 32, 1, ("S", "XL"), share=0.6),
    "gpu": Setting(8, 256, 8, 256, 64, 4, SIZES, lr=1e-3),
}


def make_space(setting: Setting) -> SearchSpace:
    """Only the feed-forward widths are elastic."""
    return gpt.space(
        context=setting.context,
        depths=(setting.depth,),
        embed_dims=(setting.dim,),
        heads=(setting.heads,),
        kv_group=1,
        head_dim=setting.dim // setting.heads,
        ffn_ratios=(0.5, 1.0, 2.0, 4.0),
    )


def main() -> None:
    given = arguments(__doc__, SETTINGS)
    setting: Setting = SETTINGS[given.setting]
    work = work_folder(__file__, given)
    work.mkdir(parents=True, exist_ok=True)
    text = data_file("text/tinyshakespeare.txt").read_bytes()
    (work / "text.txt").write_bytes(text[: int(len(text) * setting.share)])
    data = load_data(f"text:{work / 'text.txt'}", context=setting.context)
    batches = data.train_batches(setting.batch, given.seed)
    held_out = list(data.test_batches(data.evaluation_batch))
    space = make_space(setting)
    sizes = {name: granularity(space, level) for level, name in enumerate(SIZES)}

    def fit(name: str, of: SearchSpace, recipe: Recipe) -> tuple[Supernet, float]:
        return trained(of, recipe, batches, folder=work / name, seed=given.seed, device=given.device)

    rows: list[Row] = []

    def measure(method: str, tokens: int, supernet: Supernet, archs: dict[str, Arch], seconds: float) -> None:
        population = supernet.space.index(archs.values())
        found = scores(supernet, list(archs.values()), held_out, [])
        params = supernet.space.costs(population).params
        for i, name in enumerate(archs):
            rows.append(
                {
                    "method": method,
                    "network": name,
                    "params": int(params[i]),
                    "epochs_in_all": tokens,
                    "loss": float(found.loss[i]),
                    "bits_per_byte": float(found.bits[i]),
                    "train_seconds": round(seconds, 1),
                }
            )

    def recipe(epochs: int) -> Recipe:
        return matformer.recipe(epochs=epochs, lr=setting.lr)

    rungs = {f"rung {i}": arch for i, arch in enumerate(ladder(space)) if arch not in sizes.values()}
    nested, seconds = fit("matformer", space, recipe(4 * setting.epochs))
    measure("matformer", 4 * setting.epochs, nested, {**sizes, **rungs}, seconds)
    quarter, seconds = fit("quarter", space, recipe(setting.epochs))
    measure("quarter", setting.epochs, quarter, dict(sizes), seconds)
    alone: dict[str, Supernet] = {}
    for name, arch in sizes.items():
        lengths = [("separate", setting.epochs)]
        lengths += [("separate, 4 T", 4 * setting.epochs)] if name in setting.long else []
        for method, epochs in lengths:
            one = only(space, arch)
            supernet, seconds = fit(
                f"{name}-{epochs}", one, alone_recipe(matformer.recipe(epochs=epochs, lr=setting.lr))
            )
            measure(method, epochs, supernet, {name: one.largest}, seconds)
            if method == "separate":
                alone[name] = supernet

    inputs = [x.to(given.device) for x, _ in held_out]
    for name in SIZES[:-1]:
        pairs = {
            "matformer": (nested.subnet(sizes[name]), nested.subnet(sizes["XL"])),
            "separate": tuple(alone[n].subnet(alone[n].space.largest) for n in (name, "XL")),
        }
        for method, (small, large) in pairs.items():
            agreed = consistency(small, large, inputs)
            row = next(r for r in rows if (r["method"], r["network"]) == (method, name))
            row |= {"agrees_with_XL": agreed.agreement, "kl_to_XL": agreed.kl}
    folder = results_folder(__file__, given)
    every = save(folder, given.setting, given.seed, rows)
    report(every)
    plot(every, folder)


def above_the_line(rows: list[Row]) -> list[float]:
    """Loss of each mixed network less that on the line between its neighbours; below 0 is better."""
    gaps = []
    for seed in sorted({row["seed"] for row in rows}):
        mine = [r for r in rows if r["method"] == "matformer" and r["seed"] == seed]
        ends = sorted((int(r["params"]), float(r["loss"])) for r in mine if r["network"] in SIZES)
        for row in mine:
            if row["network"] not in SIZES:
                line = np.interp(int(row["params"]), *zip(*ends, strict=True))
                gaps.append(float(row["loss"]) - float(line))
    return gaps


def report(rows: list[Row]) -> None:
    """The answers, as one would put them into README.md."""
    for method in dict.fromkeys(row["method"] for row in rows):
        for name in SIZES:
            found = [r for r in rows if (r["method"], r["network"]) == (method, name)]
            if found:
                agreed = [
                    float(r["agrees_with_XL"]) for r in found if r.get("agrees_with_XL") not in (None, "")
                ]
                also = f", agrees with XL {mean_and_spread(agreed)}" if agreed else ""
                losses = mean_and_spread(float(r["loss"]) for r in found)
                print(f"{method:14} {name:2} {int(found[0]['params']):>9,} parameters  loss {losses}{also}")
    gaps = above_the_line(rows)
    print(
        f"Mix'n'Match: {sum(g <= 0 for g in gaps)} of {len(gaps)} mixed networks on or below the line "
        f"between their neighbours; mean distance {np.mean(gaps):+.4f} nats, worst {max(gaps):+.4f}"
    )


def plot(rows: list[Row], folder: Path) -> None:
    """Loss over parameters, one line per method; the mean over the seeds."""
    sheet = Figure(figsize=(8, 5.5), dpi=100, layout="constrained")
    axes = sheet.add_subplot()
    for method in dict.fromkeys(row["method"] for row in rows):
        points: dict[int, list[float]] = {}
        mixed: dict[int, list[float]] = {}
        for row in rows:
            if row["method"] == method:
                kind = points if row["network"] in SIZES else mixed
                kind.setdefault(int(row["params"]), []).append(float(row["loss"]))
        x = sorted(points)
        (line,) = axes.plot(x, [np.mean(points[p]) for p in x], marker="o", label=method)
        if mixed:
            x = sorted(mixed)
            axes.plot(
                x, [np.mean(mixed[p]) for p in x], "x", color=line.get_color(), label=f"{method}, mixed"
            )
    axes.set_xlabel("parameters")
    axes.set_ylabel("test loss, nats per byte")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    sheet.savefig(folder / "plot.png")


if __name__ == "__main__":
    main()
