"""Fine-tuning of one network, the largest of its space, from weights that it was given.

The second stage of SWS and TLEG (Xia et al. 2024): a descendant is untied and trained as any network, with
fresh AdamW, no warm-up, a cosine and a low rate (published: 5e-5 and 1e-5 for 10 epochs, 35-40 with TLEG).
Departures: a higher rate, for small data and few epochs.
"""

from __future__ import annotations

from typing import Literal

from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe


def recipe(
    *,
    epochs: int = 10,
    lr: float = 2e-4,
    teacher: Literal["none", "given"] = "none",
    optimizer: str = "adamw",
    weight_decay: float = 0.05,
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
    ema_decay: float = 0.0,
    clip_norm: float = 5.0,
    accumulate: int = 1,
) -> Recipe:
    """`epochs` of the largest network, from labels, and from the training's teacher if it is "given"."""
    phase = Phase(
        name="finetune",
        epochs=epochs,
        policy=Uniform(1, loss="teacher" if teacher == "given" else "labels"),
        open={"*": 1},
        teacher=teacher,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        mixup=mixup,
        ema_decay=ema_decay,
        clip_norm=clip_norm,
        accumulate=accumulate,
    )
    return Recipe("finetune", (phase,))
