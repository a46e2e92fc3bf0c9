"""Losses on logits [..., K], each the mean over all that comes before K, computed in float32."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence: TypeAlias = Literal["kl", "alpha"]

ALPHAS = (-1.0, 1.0)
CLIP = 5.0


def soft_targets(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Probabilities [..., classes] of int64 labels [...]: 1 - s at the label, plus s / classes everywhere."""
    off = smoothing / classes
    targets = torch.full((*labels.shape, classes), off, device=labels.device)
    return targets.scatter_(-1, labels[..., None], 1.0 - smoothing + off)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of `-sum(targets * log_softmax(logits))`; targets [..., K] are probabilities."""
    return F.cross_entropy(logits.float().flatten(0, -2), targets.float().flatten(0, -2))


def distillation(logits: Tensor, teacher_logits: Tensor, divergence: Divergence = "kl") -> Tensor:
    """How far `logits` are from the teacher's; nothing flows to the teacher.

    "kl": cross-entropy against its probabilities, which is KL(teacher || student) plus the teacher's entropy,
    which no gradient sees. "alpha": `adaptive_alpha`.
    """
    if divergence == "alpha":
        return adaptive_alpha(logits, teacher_logits).mean()
    return soft_cross_entropy(logits, teacher_logits.detach().float().softmax(dim=-1))


def adaptive_alpha(
    logits: Tensor,
    teacher_logits: Tensor,
    alphas: tuple[float, float] = ALPHAS,
    clip: float = CLIP,
) -> Tensor:
    """The larger of two alpha-divergences for each sample, [...]: of over- and underestimation the worse.

    Source: AlphaNet, Wang et al. 2021, arXiv:2102.07954. Departures: alpha = 0 is the reverse KL, where the
    published code takes it for "not given"; the value is the divergence itself, not the surrogate whose
    gradient it has.
    """
    first, second = (alpha_divergence(logits, teacher_logits, alpha, clip) for alpha in alphas)
    return torch.where(first.detach() > second.detach(), first, second)


def alpha_divergence(logits: Tensor, teacher_logits: Tensor, alpha: float, clip: float = CLIP) -> Tensor:
    """D_alpha(teacher || student) of each sample, [...], with importance weights of at most `clip`.

    For the teacher's p and the student's q: (sum q (p / q)^alpha - 1) / (alpha (alpha - 1)); the limits are
    KL(p || q) at alpha = 1 and KL(q || p) at 0. Weights (p / q)^alpha, at 0 p / q, are clipped as in the
    published code, at 1 not at all: that gradient, q - p, is bounded by itself, while a clip would hide just
    the classes that the student misses, and make the value negative.

    The gradient is that of -sum(stop(q rho) log q), rho = weight / alpha (at 0: log(p / q)), which without
    clipping is the exact one. A constant in rho adds nothing, since sum(q grad log q) = 0.
    """
    log_q = logits.float().log_softmax(dim=-1)
    log_p = teacher_logits.detach().float().log_softmax(dim=-1)
    q = log_q.detach().exp()
    log_ratio = log_p - log_q.detach()
    if alpha == 1.0:
        value = (log_p.exp() * log_ratio).sum(dim=-1)
        return value + _gradient_only(-(log_p.exp() * log_q).sum(dim=-1))
    if alpha == 0.0:
        rho = log_ratio.clamp(max=math.log(clip))
        value = (q * -rho).sum(dim=-1)
    else:
        weight = (alpha * log_ratio).clamp(max=math.log(clip)).exp()
        rho = weight / alpha
        value = ((q * weight).sum(dim=-1) - 1.0) / (alpha * (alpha - 1.0))
    return value + _gradient_only(-(q * rho * log_q).sum(dim=-1))


def _gradient_only(surrogate: Tensor) -> Tensor:
    """Zero, with the gradient of `surrogate`."""
    return surrogate - surrogate.detach()
