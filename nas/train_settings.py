"""The settings of `nas train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from nas.config import Settings, setting
from nas.option import one_of
from nas.resolve import names
from nas.setting_groups import DATA, MODEL, RUN, TRAINING


@dataclass(frozen=True)
class TrainSettings(Settings):
    """`nas train`: what a supernet is, and how it is trained."""

    space: str = setting(
        "mobilenet_v3",
        "the family of networks",
        group=MODEL,
        metavar="NAME",
        names=partial(names, "space"),
        own=True,
    )
    space_settings: Mapping[str, Any] = setting(
        {},
        "keyword of the space, such as width=1.2; may be repeated",
        group=MODEL,
        metavar="KEY=VALUE",
        flag="--space-set",
    )
    scheme: str | None = setting(
        None,
        "how subnets share the weights; as the recipe needs it if left out",
        group=MODEL,
        metavar="NAME",
        names=partial(names, "scheme"),
        own=True,
    )
    scheme_settings: Mapping[str, Any] = setting(
        {},
        "keyword of the scheme, such as stages=[2,4,2]; may be repeated",
        group=MODEL,
        metavar="KEY=VALUE",
        flag="--scheme-set",
    )
    recipe: str = setting(
        "sandwich",
        "how the supernet is trained",
        group=MODEL,
        metavar="NAME",
        names=partial(names, "recipe"),
        own=True,
    )
    teacher: str | None = setting(
        None,
        "who teaches: a run (its largest subnet), timm:NAME or timm:NAME@FILE",
        group=MODEL,
        metavar="TEACHER",
    )
    teacher_size: int | None = setting(
        None, "height and width of the images that a timm teacher sees", group=MODEL, metavar="N", least=4
    )
    recipe_settings: Mapping[str, Any] = setting(
        {},
        "keyword of the recipe, such as n=4; may be repeated",
        group=MODEL,
        metavar="KEY=VALUE",
        flag="--recipe-set",
    )
    init: str | None = setting(
        None,
        "begin with these weights: RUN, FILE.safetensors, timm:NAME or timm:NAME@FILE",
        group=MODEL,
        metavar="WEIGHTS",
    )
    data: str = setting(
        "digits",
        "digits, imagefolder:DIR, npz:FILE, text:PATH, or a set of torchvision such as cifar10",
        group=DATA,
        metavar="NAME",
    )
    data_dir: str | None = setting(
        None, "where the files of named data sets lie", group=DATA, metavar="DIR", portable=True
    )
    download: bool = setting(False, "fetch missing files of a named data set", group=DATA, portable=True)
    image_size: int | None = setting(
        None, "height and width of the largest input, in pixels", group=DATA, metavar="N", least=4, most=4096
    )
    context: int | None = setting(
        None,
        "bytes of text that a network sees at once; 256 if left out",
        group=DATA,
        metavar="N",
        least=1,
        most=65536,
    )
    epochs: int | None = setting(
        None, "passes over the training data, all phases together", group=TRAINING, metavar="N", least=1
    )
    batch_size: int = setting(
        64, "images, or windows of text, per step", group=TRAINING, metavar="N", least=1
    )
    lr: float | None = setting(
        None, "peak learning rate; the recipe's own if left out", group=TRAINING, metavar="X", least=0
    )
    seed: int = setting(
        0,
        "of weights, data order and all sampling",
        group=TRAINING,
        metavar="N",
        least=0,
        most=2**32 - 1,
    )
    device: str = setting(
        "auto", "auto, cpu, cuda or cuda:N", group=TRAINING, metavar="DEVICE", portable=True
    )
    precision: str = setting(
        "auto",
        "arithmetic of the training",
        group=TRAINING,
        metavar="NAME",
        names=one_of("auto", "fp32", "bf16", "fp16"),
    )
    compile: str = setting(
        "none",
        "run through torch.compile: none, or the largest network of a step",
        group=TRAINING,
        metavar="NAME",
        names=one_of("none", "largest"),
    )
    vary_archs: bool = setting(
        False, "with torchrun: other networks on each rank, not the same on all", group=TRAINING
    )
    runs: str = setting("runs", "folder that holds the run folders", group=RUN, metavar="DIR", portable=True)
    name: str | None = setting(None, "name of the run folder", group=RUN, metavar="NAME")
    resume: str | None = setting(
        None,
        "continue this run with its own settings",
        group=RUN,
        metavar="RUN",
        portable=True,
    )
    checkpoint_minutes: float = setting(
        5.0, "minutes between checkpoints", group=RUN, metavar="X", least=0, portable=True
    )
    dry_run: bool = setting(
        False, "show the plan and its cost, and do nothing", group=RUN, short="-n", portable=True
    )
