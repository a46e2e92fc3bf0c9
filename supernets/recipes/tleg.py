"""TLEG, stage one: one network whose layers lie on a line learns from a teacher alone.

Source: Xia et al., AAAI 2024; the training is that of `sws`, but for the drop path, which is off. The same
departures. Weight decay on the slope pulls towards tied layers: scheme setting `decay_slope=false` spares it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from supernets.recipe import Recipe
from supernets.recipes import sws


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
    same = sws.recipe(
        epochs=epochs,
        lr=lr,
        teacher=teacher,
        depth=depth,
        optimizer=optimizer,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        mixup=mixup,
        ema_decay=ema_decay,
        clip_norm=clip_norm,
        accumulate=accumulate,
    )
    return replace(same, name="tleg", scheme="linear_expansion")
