"""How alike a small and a large network of one supernet speak.

Nested models that are consistent can stand in for each other: as drafts, in retrieval, by load.
Source: MatFormer, Devvrit et al. 2024, arXiv:2310.07707, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces import InputError


@dataclass(frozen=True)
class Consistency:
    """How far a network agrees with a larger one for the same prefixes."""

    agreement: float  # share of predictions whose likeliest token (or class) is the larger's
    kl: float  # mean KL(small || large), nats per prediction
    predictions: int


@torch.no_grad()
def consistency(
    small: Callable[[Tensor], Tensor], large: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> Consistency:
    """Agreement and divergence over all positions of all batches; of a network with itself 1 and 0.

    Each takes a batch, of tokens [B, T] or images, to logits [..., classes]; draw them in eval mode.

    Raises:
        InputError: no batch.
    """
    agreed = predictions = 0
    divergence = 0.0
    for x in batches:
        a, b = small(x).float().log_softmax(dim=-1), large(x).float().log_softmax(dim=-1)
        agreed += int((a.argmax(dim=-1) == b.argmax(dim=-1)).sum())
        divergence += float((a.exp() * (a - b)).sum(dtype=torch.float64))
        predictions += a.shape[:-1].numel()
    if not predictions:
        raise InputError("consistency needs at least one batch of inputs")
    return Consistency(agreed / predictions, divergence / predictions, predictions)
