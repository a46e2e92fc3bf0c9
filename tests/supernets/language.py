"""A tiny supernet of language models in float64, and sequences of tokens, for the tests of decoding."""

from __future__ import annotations

import torch
from drawn import randomise
from torch import Tensor

from search_spaces import Arch, SearchSpace, gpt
from supernets import Supernet

CLASSES = 7
CONTEXT = 24


def language_space(**keywords: object) -> SearchSpace:
    sizes = {"depths": (1, 2, 3), "embed_dims": (8, 12), "head_dim": 4, "heads": (2, 4)}
    return gpt.space(**{"classes": CLASSES, "context": CONTEXT, **sizes, **keywords})


def language_supernet(seed: int = 0, **keywords: object) -> Supernet:
    """Weights far from their small first values: float64, so that no two tokens tie to rounding."""
    supernet = Supernet(language_space(**keywords), seed=seed).double().eval()
    for n in range(4):
        randomise(supernet, seed=10 * seed + n)
    with torch.no_grad():
        for tensor in supernet.parameters():  # else a text is soon one token over and over
            tensor.mul_(3.0)
    return supernet


def uniform(space: SearchSpace, ratio: float, **changes: int) -> Arch:
    """The largest arch with this FFN ratio in every block."""
    wanted = {c.name: ratio if c.name.endswith("ffn_ratio") else c.options[-1] for c in space.choices}
    return space.arch({**wanted, **changes})


def sequences(batch: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(CLASSES, (batch, count), generator=torch.Generator().manual_seed(seed))
