"""Mixup: each image is blended with another of its batch, and its label with that one's.

timm's `Mixup` draws from numpy's global state, so a step could not be repeated; this one takes a generator.
Source: Zhang et al. 2018, arXiv:1710.09412.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mixup(x: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """`x` [B, ...] and probabilities `targets` [B, K], blended by one share from Beta(alpha, alpha)."""
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(x))).to(x.device)
    return torch.lerp(x[other], x, share), torch.lerp(targets[other], targets, share)
