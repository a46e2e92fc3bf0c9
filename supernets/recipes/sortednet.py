"""SortedNet: hundreds of nested sub-models in one run, a random one per micro-batch, a step on their union.

No distillation and no search afterwards: a network for a budget is looked up in the list (`nas search
--searcher nested_lookup`). Source: Valipour et al. 2023, arXiv:2309.00255. With `exits` it is sorted
fine-tuning of a language model, arXiv:2309.08968: the mean loss of all exits, in one pass.

The gradient of a step is the mean over its micro-batches, as in all accumulation here, not their sum: lr
keeps its meaning when `n` changes. Departure: optimiser and rates are those of the other recipes, since the
paper's were not to be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from search_spaces.arch import Option
from search_spaces.errors import InputError
from supernets.plan import SamplingPolicy
from supernets.policies.exits import Exits
from supernets.policies.nested_list import NestedList
from supernets.recipe import Phase, Recipe


def recipe(
    *,
    epochs: int = 30,
    lr: float = 1e-3,
    n: int = 4,
    dimensions: Sequence[str] = (),
    archs: Sequence[Mapping[str, Option]] = (),
    exits: Sequence[int] = (),
    optimizer: str = "adamw",
    weight_decay: float = 0.05,
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
    ema_decay: float = 0.0,
    clip_norm: float = 5.0,
    untouched: Literal["dense", "masked"] = "dense",
) -> Recipe:
    """`epochs` of `n` nested sub-models per optimiser step, each on a micro-batch of its own.

    The list is `archs`, or the grid over `dimensions`: ["depth", "*.heads"]; all kinds of choices if neither
    is given. With `exits`, numbers of blocks, every step trains all of them on one batch instead.

    Raises:
        InputError: `exits` beside a list.
    """
    if exits and (dimensions or archs):
        raise InputError("exits = ... trains exits of one network; leave dimensions and archs out")
    policy: SamplingPolicy = Exits(exits) if exits else NestedList(n, dimensions, archs)
    phase = Phase(
        name="sortednet",
        epochs=epochs,
        policy=policy,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=min(5.0, epochs / 10),
        label_smoothing=label_smoothing,
        mixup=mixup,
        ema_decay=ema_decay,
        clip_norm=clip_norm,
        accumulate=1 if exits else n,
        untouched=untouched,
    )
    return Recipe("sortednet", (phase,))
