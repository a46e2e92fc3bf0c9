"""Losses on logits [B, K], each the mean over the batch, computed in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_targets(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Probabilities [B, classes] of int64 labels [B]: 1 - s at the label, plus s / classes everywhere."""
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1.0 - smoothing + off)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of `-sum(targets * log_softmax(logits))`; targets [B, K] are probabilities."""
    return F.cross_entropy(logits.float(), targets.float())


def distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of `logits` against the teacher's probabilities; nothing flows to the teacher.

    It is KL(teacher || student) plus the teacher's entropy, which no gradient sees.
    """
    return soft_cross_entropy(logits, teacher_logits.detach().float().softmax(dim=1))
