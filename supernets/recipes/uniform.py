"""Uniform sampling in one phase: n random archs per step, all with labels, and with a teacher if given.

Source: AutoFormer, Chen et al. 2021, arXiv:2107.00651 (n = 1, AdamW, label smoothing, no distillation).
Departures: fewer epochs, no DeiT augmentation beyond mixup, dropout is not scaled with the embedding.
"""

from __future__ import annotations

from typing import Literal

from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe


def recipe(
    *,
    epochs: int = 30,
    lr: float = 1e-3,
    n: int = 1,
    teacher: Literal["none", "given"] = "none",
    kd_ratio: float = 1.0,
    optimizer: str = "adamw",
    weight_decay: float = 0.05,
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
    ema_decay: float = 0.0,
    clip_norm: float = 5.0,
    accumulate: int = 1,
) -> Recipe:
    """`epochs` of n uniformly drawn archs per step; a tenth of the epochs warms up."""
    phase = Phase(
        name="uniform",
        epochs=epochs,
        policy=Uniform(n, "labels" if teacher == "none" else "teacher"),
        teacher=teacher,
        kd_ratio=kd_ratio,
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
    return Recipe("uniform", (phase,))
