"""SWS and TLEG on Fashion-MNIST: descendants of four depths against training from scratch and copied layers.

    python -m studies.learngene.study                    # about 10 minutes on one core
    python -m studies.learngene.study --setting gpu --seed 1

A small convolutional network teaches throughout: the auxiliaries by its answers alone, and every network of
the four depths by the labels and its answers, so that they differ in their first values only. `copied` takes
the first layers of one plain network as deep as the deepest, pre-trained as the auxiliaries were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nas.trained import calibration
from search_spaces import SearchSpace, mobilenet_v3, vit
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
from supernets.evaluate import evaluate, recalibrate, top1
from supernets.pretrained import initialise
from supernets.recipes import finetune, sws, tleg, uniform
from supernets.schemes import LayeredScheme, LinearExpansion, StageShared
from supernets.storage import storage
from supernets.supernet import Supernet
from supernets.teacher import Frozen


@dataclass(frozen=True)
class Setting:
    """How large the study is."""

    images: int  # for training and validation
    test: int
    image_size: int
    patch: int
    dim: int
    stages: tuple[int, ...]  # of SWS; TLEG's auxiliary is as deep
    depths: tuple[int, ...]  # of the descendants
    epochs: int  # of the auxiliaries and the network that layers are copied from
    teacher: int  # epochs of the teacher
    tuning: tuple[int, ...] = (1, 5)
    batch: int = 64
    lr: float = 1e-3  # of all that begins at random
    tuning_lr: float = 5e-4  # of what begins with trained weights


SETTINGS: Mapping[str, Setting] = {
    "smoke": Setting(300, 200, 8, 4, 16, (1, 2, 1), (2, 5), 1, 1, (1,)),
    "small": Setting(2500, 2000, 16, 4, 64, (1, 2, 2, 2, 1), (4, 6, 8, 10), 24, 12),
    "gpu": Setting(
        60_000, 10_000, 28, 4, 192, (2, 2, 4, 2, 2), (4, 8, 12, 16), 60, 30, batch=256, tuning_lr=3e-4
    ),
}
SCRATCH, LONG, COPIED, SWS, TLEG = "scratch", "scratch, long", "copied", "SWS", "TLEG"
MARKERS = {SCRATCH: "x", LONG: "+", COPIED: "^", SWS: "o", TLEG: "s"}


def make_space(setting: Setting, *depths: int) -> SearchSpace:
    """Vision transformers of these depths with one width, mean pooling and no class token."""
    return vit.space(
        classes=10,
        channels=1,
        image_size=setting.image_size,
        patch=setting.patch,
        depths=depths,
        embed_dims=(setting.dim,),
        heads=(max(1, setting.dim // 32),),
        head_dim=min(32, setting.dim),
        mlp_ratios=(4.0,),
        pool="mean",
    )


@dataclass(frozen=True)
class Study:
    """What all trainings of one seed share."""

    setting: Setting
    seed: int
    device: str
    work: Path
    data: Any

    def batches(self) -> Any:
        return self.data.train_batches(self.setting.batch, self.seed)

    def macs(self, depth: int, epochs: int) -> float:
        """Multiply-adds of the forward passes of a training; the backward ones are twice as many for all."""
        space = make_space(self.setting, depth)
        one = int(space.costs(space.index([space.largest])).macs[0])
        return float(one) * epochs * len(self.data.train)

    def accuracy(self, supernet: Supernet) -> float:
        test = list(self.data.test_batches(500))
        return float(evaluate(supernet, [supernet.space.largest], test, [])[0])


def teach(study: Study) -> tuple[Frozen, float]:
    """A convolutional network trained on the labels, and its test accuracy."""
    space = mobilenet_v3.space(
        classes=10,
        channels=1,
        image_size=study.setting.image_size,
        depths=(2,),
        resolutions=(study.setting.image_size,),
        kernels=(3,),
        expands=(3,),
    )
    supernet, _ = trained(
        space,
        uniform.recipe(epochs=study.setting.teacher, lr=2e-3),
        study.batches(),
        folder=study.work / "teacher",
        seed=study.seed,
        device=study.device,
    )
    images = [x.to(study.device) for x in calibration(study.data)]
    module = recalibrate(supernet.extract(space.largest), images)
    return Frozen(space, module), top1(module, study.data.test_batches(500))


def stage_one(study: Study, teacher: Frozen) -> dict[str, Supernet]:
    """The two auxiliaries and the plain network, each trained by the teacher's answers alone."""
    setting, depth = study.setting, sum(study.setting.stages)
    learngenes: dict[str, tuple[Any, Supernet]] = {
        SWS: (sws, Supernet(make_space(setting, depth), StageShared(setting.stages), seed=study.seed)),
        TLEG: (tleg, Supernet(make_space(setting, depth), LinearExpansion(), seed=study.seed)),
        COPIED: (sws, Supernet(make_space(setting, max(setting.depths)), seed=study.seed)),
    }
    return {
        name: trained(
            supernet.space,
            module.recipe(epochs=setting.epochs, lr=setting.lr, teacher="given"),
            study.batches(),
            folder=study.work / f"stage-one-{name}",
            seed=study.seed,
            device=study.device,
            supernet=supernet,
            teacher=teacher,
        )[0]
        for name, supernet, module in ((n, s, m) for n, (m, s) in learngenes.items())
    }


def descendant(study: Study, method: str, source: Supernet | None, depth: int) -> Supernet:
    """A plain supernet of one network of that depth, with the method's first values."""
    made = Supernet(make_space(study.setting, depth), seed=study.seed)
    if source is None:
        return made
    if isinstance(source.scheme, LayeredScheme):
        scheme = StageShared(study.setting.stages) if method == SWS else LinearExpansion()
        deep = Supernet(make_space(study.setting, depth), scheme)
        deep.load_shared_state({name: t.cpu() for name, t in source.shared_state().items()})
        source = deep
    plain = {name: t.cpu() for name, t in source.extract(source.space.largest).state_dict().items()}
    initialise(made, plain, same_classes=True)
    return made


def tuned(study: Study, method: str, source: Supernet | None, epochs: int, teacher: Frozen) -> list[Row]:
    """One row per depth: the network with the method's first values after so many epochs."""
    setting, rows = study.setting, []
    lr = setting.lr if source is None else setting.tuning_lr
    recipe = finetune.recipe(epochs=max(1, epochs), lr=lr, teacher="given")
    if source is None:  # what begins at random warms up, as the auxiliaries did
        warm = replace(recipe.phases[0], warmup_epochs=min(5.0, epochs / 10))
        recipe = replace(recipe, phases=(warm,))
    for depth in setting.depths:
        network, seconds = descendant(study, method, source, depth).eval(), 0.0
        if epochs:
            network, seconds = trained(
                network.space,
                recipe,
                study.batches(),
                folder=study.work / f"{method.replace(', ', '-')}-{depth}-{epochs}",
                seed=study.seed,
                device=study.device,
                supernet=network,
                teacher=teacher,
            )
        rows.append(
            {
                "method": method,
                "depth": depth,
                "epochs": epochs,
                "accuracy": study.accuracy(network),
                "train_macs": study.macs(depth, epochs),
                "train_seconds": round(seconds, 1),
            }
        )
    return rows


def main() -> None:
    given = arguments(__doc__, SETTINGS)
    setting: Setting = SETTINGS[given.setting]
    data = fashion(setting.images, setting.test, setting.image_size, given.work)
    work = work_folder(__file__, given)
    study = Study(setting, given.seed, given.device, work, data)
    teacher, its_accuracy = teach(study)
    first = stage_one(study, teacher)
    spaces = {depth: make_space(setting, depth) for depth in setting.depths}
    rows: list[Row] = [{"method": "teacher", "accuracy": its_accuracy}]
    for method, source in first.items():
        depth = source.space.largest.integer("depth")
        saved = storage(source, spaces)
        rows.append(
            {
                "method": f"{method}, stage one",
                "depth": depth,
                "epochs": setting.epochs,
                "accuracy": study.accuracy(source),
                "train_macs": study.macs(depth, setting.epochs),
                "stored": saved.learngene,
                "networks": saved.total,
            }
        )
    for epochs in (0, *setting.tuning):
        for method, begun in {**first, SCRATCH: None}.items():
            if epochs or begun is not None:
                rows += tuned(study, method, begun, epochs, teacher)
    rows += tuned(study, LONG, None, setting.epochs, teacher)
    folder = results_folder(__file__, given)
    every = save(folder, given.setting, given.seed, rows)
    report(every, setting)
    plot(every, setting, folder)


def report(rows: list[Row], setting: Setting) -> None:
    """The answers, as tables for README.md."""
    seeds = sorted({row["seed"] for row in rows})
    at = {(r["method"], str(r.get("epochs", "")), str(r.get("depth", "")), r["seed"]): r for r in rows}

    def value(method: str, epochs: int, depth: int, column: str = "accuracy") -> list[float]:
        return [float(at[method, str(epochs), str(depth), seed][column]) for seed in seeds]

    print("| first values | epochs | " + " | ".join(f"depth {d}" for d in setting.depths) + " |")
    print("|---" * (len(setting.depths) + 2) + "|")
    for epochs in (0, *setting.tuning):
        for method in (SCRATCH, COPIED, SWS, TLEG):
            if epochs or method != SCRATCH:
                cells = [mean_and_spread(value(method, epochs, depth)) for depth in setting.depths]
                print(f"| {method} | {epochs} | " + " | ".join(cells) + " |")
    cells = [mean_and_spread(value(LONG, setting.epochs, depth)) for depth in setting.depths]
    print(f"| {LONG} | {setting.epochs} | " + " | ".join(cells) + " |\n")
    taught = mean_and_spread(float(row["accuracy"]) for row in rows if row["method"] == "teacher")
    print(f"the teacher: {taught}\n")
    print("| first values | training, all depths, multiply-adds | parameters stored | full models |")
    print("|---|---|---|---|")
    last = max(setting.tuning)
    alone = sum(value(LONG, setting.epochs, d, "train_macs")[0] for d in setting.depths)
    print(f"| {LONG} | {alone:.3g} | | |")
    for method in (COPIED, SWS, TLEG):
        stage = next(row for row in rows if row["method"] == f"{method}, stage one")
        tuning = sum(value(method, last, d, "train_macs")[0] for d in setting.depths)
        macs = float(stage["train_macs"]) + tuning
        stored, full = int(stage["stored"]), int(stage["networks"])
        print(
            f"| {method} | {macs:.3g} ({alone / macs:.2f} x less) | {stored:,} "
            f"({full / stored:.2f} x fewer) | {full:,} |"
        )


def plot(rows: list[Row], setting: Setting, folder: Path) -> None:
    """Accuracy by depth, one panel per number of epochs, the mean over the seeds."""
    shown = (0, *setting.tuning)
    sheet = Figure(figsize=(4 * len(shown), 4), dpi=100, layout="constrained")
    panels = sheet.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, epochs in zip(panels, shown, strict=True):
        for colour, (method, marker) in enumerate(MARKERS.items()):
            wanted = str(setting.epochs if method == LONG else epochs)
            points: dict[int, list[float]] = {}
            for row in rows:
                if row["method"] == method and str(row["epochs"]) == wanted:
                    points.setdefault(int(row["depth"]), []).append(100 * float(row["accuracy"]))
            if points:
                means = [sum(points[d]) / len(points[d]) for d in sorted(points)]
                label = f"{method} ({setting.epochs} epochs)" if method == LONG else method
                axes.plot(sorted(points), means, marker=marker, color=f"C{colour}", label=label)
        axes.set_title(f"{epochs} epoch{'' if epochs == 1 else 's'}", fontsize=10)
        axes.set_xlabel("layers")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    panels[-1].legend(frameon=False, fontsize=8)
    sheet.savefig(folder / "plot.png")


if __name__ == "__main__":
    main()
