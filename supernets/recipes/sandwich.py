"""The sandwich rule with in-place distillation in one phase, scaled for small data sets.

Sources: BigNAS, Yu et al. 2020, arXiv:2003.11142; universally slimmable networks, Yu and Huang 2019,
arXiv:1903.05134. Departures from BigNAS: SGD with Nesterov momentum and a cosine to zero in place of
RMSProp and an exponential decay to 5 %; the gradient's norm is clipped, since in-place targets
are wild early. `divergence` = "alpha" distils by AlphaNet's adaptive divergence, Wang et al. 2021,
arXiv:2102.07954.
"""

from __future__ import annotations

from supernets.losses import Divergence
from supernets.policies.sandwich import Sandwich
from supernets.recipe import Phase, Recipe


def recipe(
    *,
    epochs: int = 20,
    lr: float = 0.1,
    n: int = 4,
    divergence: Divergence = "kl",
    optimizer: str = "sgd",
    weight_decay: float = 1e-4,
    label_smoothing: float = 0.1,
    ema_decay: float = 0.0,
    clip_norm: float = 5.0,
    accumulate: int = 1,
) -> Recipe:
    """`epochs` of largest, smallest and n - 2 random archs per step; a tenth of the epochs warms up."""
    phase = Phase(
        name="sandwich",
        epochs=epochs,
        policy=Sandwich(n),
        divergence=divergence,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=min(5.0, epochs / 10),
        label_smoothing=label_smoothing,
        ema_decay=ema_decay,
        clip_norm=clip_norm,
        accumulate=accumulate,
    )
    return Recipe("sandwich", (phase,))
