"""Progressive shrinking: the largest network first, then kernels, depths and widths, each stage distilled.

The whole of Once-for-All's training as one recipe: it trains its own teacher and runs all stages one after
the other. Stage by stage more of the space is open (within a stage archs are drawn uniformly, not from large
to small); channels are sorted before a width opens; every resolution is open from the start. Rates are for
the sum of the losses of a step. Source: Cai et al. 2020, arXiv:1908.09791, section 3 and appendix.

Departures: fewer epochs, in proportions meant for small images; the frozen teacher runs in eval mode, and on
its own resolution. After the kernel stage the kernel matrices train on, as in the public code, or stay as
they are, as in the paper (`freeze_matrices`). The recipe knows no space: choices named "kernel" and "depth"
open in their stages, all others in the width stages; a stage that opens nothing gives its epochs away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from search_spaces.errors import InputError
from search_spaces.space import RESOLUTION
from supernets.channel_sort import SortChannels
from supernets.losses import Divergence
from supernets.plan import Loss
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase, Recipe

_ALL = 30_000  # more than any choice has options
_LARGEST = {"*": 1, RESOLUTION: _ALL}


class _Stage(NamedTuple):
    name: str
    open: Mapping[str, int]
    epochs: int  # in proportion
    lr: float  # in proportion
    n: int  # archs per step
    sort: bool = False


_STAGES = (
    _Stage("largest", _LARGEST, 30, 1.0, 1),
    _Stage("kernel", {**_LARGEST, "*kernel": _ALL}, 10, 0.5, 1),
    _Stage("depth 1", {**_LARGEST, "*kernel": _ALL, "*depth": 2}, 3, 0.1, 2),
    _Stage("depth 2", {**_LARGEST, "*kernel": _ALL, "*depth": _ALL}, 10, 0.3, 2),
    _Stage("width 1", {"*": 2, RESOLUTION: _ALL, "*kernel": _ALL, "*depth": _ALL}, 3, 0.1, 4, sort=True),
    _Stage("width 2", {"*": _ALL}, 10, 0.3, 4, sort=True),
)


def recipe(
    *,
    epochs: int = 66,
    lr: float = 0.1,
    teacher: Literal["largest", "given"] = "largest",
    kd_ratio: float = 1.0,
    divergence: Divergence = "kl",
    freeze_matrices: bool = False,
    one_resolution: bool = True,
    optimizer: str = "sgd",
    weight_decay: float = 5e-4,
    label_smoothing: float = 0.1,
    clip_norm: float = 0.0,
    accumulate: int = 1,
) -> Recipe:
    """`epochs` of all six stages together, with `lr` for the first and fixed shares of it for the others.

    Args:
        teacher: "largest" is the network of the first stage; "given" the one that `train` is given, which
            then teaches the first stage too.
        freeze_matrices: keep the kernel matrices after the kernel stage as they are.
        one_resolution: all archs of a step take the resolution of the first, as published.

    Raises:
        InputError: fewer epochs than stages.
    """
    shares = split(epochs, [stage.epochs for stage in _STAGES])
    phases = []
    for i, (stage, length) in enumerate(zip(_STAGES, shares, strict=True)):
        first = i == 0
        loss: Loss = "labels" if first and teacher == "largest" else "teacher"
        phases.append(
            Phase(
                name=stage.name,
                epochs=length,
                policy=Uniform(stage.n, loss, one_resolution),
                open=stage.open,
                teacher="none" if loss == "labels" else teacher,
                kd_ratio=kd_ratio,
                divergence=divergence,
                frozen=("scheme.matrices.*",) if freeze_matrices and i > 1 else (),
                optimizer=optimizer,
                lr=lr * stage.lr,
                weight_decay=weight_decay,
                warmup_epochs=length / (10 if first else 25),
                label_smoothing=label_smoothing,
                clip_norm=clip_norm,
                accumulate=accumulate,
                at_entry=(SortChannels(_STAGES[i - 1].open),) if stage.sort else (),
                skippable=not first,
            )
        )
    return Recipe("progressive_shrinking", tuple(phases), scheme="kernel_transform")


def split(total: int, shares: list[int]) -> list[int]:
    """`total` in whole parts of at least 1 in proportion to `shares`, the largest remainders rounded up.

    Raises:
        InputError: fewer than one for each.
    """
    if total < len(shares):
        raise InputError(
            f"progressive_shrinking has {len(shares)} stages of at least one epoch; epochs is {total}"
        )
    exact = [(total - len(shares)) * share / sum(shares) for share in shares]
    parts = [1 + int(part) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: int(exact[i]) - exact[i])
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts
