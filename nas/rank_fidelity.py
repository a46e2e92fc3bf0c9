"""Whether one ranking can be trusted for another: Kendall's tau, its spread, and what a count alone gives.

Sources: Kendall 1945, "The treatment of ties in ranking problems" (tau-b); Yu et al. 2020, "Evaluating the
search phase of neural architecture search", arXiv:1902.08142, for why a supernet's ranking must be checked.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2000
_LEVEL = 0.95


@dataclass(frozen=True)
class Fidelity:
    """How a supernet's scores agree with those of the same networks trained alone; higher scores are better.

    Attributes:
        networks: how many were compared.
        tau: Kendall's tau-b of the two scores, 1 is the same order; NaN where one of them is constant.
        low, high: 95 % bootstrap interval of `tau` over the networks.
        tau_params, tau_macs: of the parameters and of the multiply-adds with the scores alone: what one gets
            without any supernet.
        gap: the mean of score alone minus score in the supernet.
        regret: the best score alone minus that of the network which the supernet puts first.
        monotone: share of neighbours in order of multiply-adds whose score in the supernet does not fall.
    """

    networks: int
    tau: float
    low: float
    high: float
    tau_params: float
    tau_macs: float
    gap: float
    regret: float
    monotone: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; None for NaN."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b of two series of numbers [n]: (agreeing - disagreeing pairs) over the untied ones.

    NaN where one is constant, or of fewer than two numbers.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if len(x) != len(y):
        raise ValueError(f"a ranking of {len(x)} and one of {len(y)} cannot be compared")
    first, second = np.triu_indices(len(x), 1)
    dx, dy = np.sign(x[first] - x[second]), np.sign(y[first] - y[second])
    untied = math.sqrt(float((dx != 0).sum()) * float((dy != 0).sum()))
    return float((dx * dy).sum()) / untied if untied else math.nan


def bootstrap_tau(
    a: ArrayLike, b: ArrayLike, *, seed: int = 0, resamples: int = _RESAMPLES
) -> tuple[float, float]:
    """The 95 % percentile interval of tau-b over networks drawn with replacement. (low, high)

    A network drawn twice is tied with itself in both series, which tau-b leaves out. Resamples of which one
    series is constant are left out too; NaN where that leaves none.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(x), (resamples, len(x)))
    taus = np.array([kendall_tau(x[draw], y[draw]) for draw in draws])
    taus = taus[~np.isnan(taus)]
    if not len(taus):
        return math.nan, math.nan
    low, high = np.quantile(taus, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def monotone_share(cost: ArrayLike, score: ArrayLike) -> float:
    """Share of neighbours in order of cost whose score does not fall, in [0, 1]; NaN for fewer than two."""
    order = np.argsort(np.asarray(cost), kind="stable")
    steps = np.diff(np.asarray(score, dtype=np.float64)[order])
    return float((steps >= 0).mean()) if len(steps) else math.nan


def fidelity(
    shared: NDArray[np.float64],
    alone: NDArray[np.float64],
    params: NDArray[np.int64],
    macs: NDArray[np.int64],
    *,
    seed: int = 0,
) -> Fidelity:
    """The agreement of scores with shared weights and alone, [n] each; higher is better in both."""
    low, high = bootstrap_tau(shared, alone, seed=seed)
    return Fidelity(
        networks=len(alone),
        tau=kendall_tau(shared, alone),
        low=low,
        high=high,
        tau_params=kendall_tau(params, alone),
        tau_macs=kendall_tau(macs, alone),
        gap=float(np.mean(alone - shared)),
        regret=float(alone.max() - alone[int(np.argmax(shared))]),
        monotone=monotone_share(macs, shared),
    )
