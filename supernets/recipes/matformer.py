"""MatFormer: nested feed-forward widths trained together, one random granularity per step.

Plain cross-entropy, no distillation, no stages, the settings of the network trained alone. With g equally
likely granularities, units that only the largest has learn in one step of g, those of the smallest in all.
Source: Devvrit et al. 2024, arXiv:2310.07707, section 3. Networks between the granularities come for free
afterwards (`search_spaces.minimum_slope`). As in all public codes, momentum and weight decay act on units
that a step did not use; `untouched` = "masked" leaves them alone.

`joint` trains all granularities at every step and sums their losses: more costly, and the scale of the
loss is g times as large, which clipping sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from search_spaces.nesting import FFN
from supernets.policies.granularities import Granularities
from supernets.recipe import Phase, Recipe


def recipe(
    *,
    epochs: int = 30,
    lr: float = 1e-3,
    joint: bool = False,
    probabilities: Sequence[float] = (),
    patterns: Sequence[str] = FFN,
    optimizer: str = "adamw",
    weight_decay: float = 0.05,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    ema_decay: float = 0.0,
    clip_norm: float = 1.0,
    accumulate: int = 1,
    untouched: Literal["dense", "masked"] = "dense",
) -> Recipe:
    """`epochs` of one random granularity of the feed-forward layers per step; a tenth of them warms up.

    `patterns` names the choices that move together, `probabilities` their granularities' chances.
    """
    phase = Phase(
        name="matformer",
        epochs=epochs,
        policy=Granularities(patterns, probabilities, joint),
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=min(5.0, epochs / 10),
        label_smoothing=label_smoothing,
        mixup=mixup,
        ema_decay=ema_decay,
        clip_norm=clip_norm,
        accumulate=accumulate,
        untouched=untouched,
    )
    return Recipe("matformer", (phase,))
