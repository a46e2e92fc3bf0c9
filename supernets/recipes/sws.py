"""SWS, stage one: one network whose stages share their layers learns from a teacher alone.

Only the depth that the stages add up to is trained; `nas expand` makes descendants of any depth afterwards.
Source: Xia et al., IJCAI 2024: AdamW at 5e-4 for a batch of 512, weight decay 0.05, 5 epochs of warm-up,
cosine, soft distillation with neither labels nor temperature. Departures: fewer epochs at a rate for small
data; no DeiT augmentation beyond mixup; the soft loss is a mean over the batch; without a teacher the labels
teach, which the record of the run shows.
"""

from __future__ import annotations

from typing import Literal

from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe


def recipe(
    *,
    epochs: int = 40,
    lr: float = 1e-3,
    teacher: Literal["none", "given"] = "none",
    depth: int = 0,
    optimizer: str = "adamw",
    weight_decay: float = 0.05,
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
    ema_decay: float = 0.0,
    clip_norm: float = 5.0,
    accumulate: int = 1,
) -> Recipe:
    """`epochs` of the network of `depth` layers, the deepest of the space if 0; a tenth of them warms up.

    teacher: "given" is who teaches the training, and then no label does; "none": the labels do.
    """
    phase = Phase(
        name="auxiliary",
        epochs=epochs,
        policy=Uniform(1, loss="distill" if teacher == "given" else "labels"),
        open={"*": 1, "depth": (depth,)} if depth else {"*": 1},
        teacher=teacher,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=min(5.0, epochs / 10),
        label_smoothing=label_smoothing,
        mixup=mixup,
        ema_decay=ema_decay,
        clip_norm=clip_norm,
        accumulate=accumulate,
    )
    return Recipe("sws", (phase,), scheme="stage_shared")
