"""Mixup: each image is blended with another of its batch, and its label with that one's.

timm's `Mixup` draws from numpy's global state, so a step could not be repeated; this one takes a generator.
Source: Zhang et al. 2018, arXiv:1710.09412.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from supernets.distributed import ALONE, Ranks


def mixup(
    x: Tensor,
    targets: Tensor,
    alpha: float,
    rng: np.random.Generator,
    ranks: Ranks = ALONE,
    first: int = 0,
    count: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`x` [B, ...] and probabilities `targets` [B, K], blended by one share from Beta(alpha, alpha).

    Of several ranks, each has images `first` on of the `count` of a batch, and blends them with any of those.
    """
    count = len(x) if count is None else count
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(count)).to(x.device)
    if ranks.size == 1:
        return torch.lerp(x[other], x, share), torch.lerp(targets[other], targets, share)
    all_x, all_targets = ranks.whole(x, first, count), ranks.whole(targets, first, count)
    own = torch.arange(first, first + len(x), device=x.device)
    other = other[first : first + len(x)]
    other = torch.where(all_targets[other].sum(dim=1) > 0, other, own)  # images that could not be read
    return torch.lerp(all_x[other], x, share), torch.lerp(all_targets[other], targets, share)
