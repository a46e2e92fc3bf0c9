"""The front of a search: who is dominated by nobody, where its knee is, how much it covers.

    front = nondominated(minimised(columns, {"accuracy": "max", "latency_ms": "min"}))

Everything here minimises; `minimised` turns named columns into such a matrix. Letters of the shapes: n
points, m objectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search_spaces.errors import InputError, did_you_mean

Direction = Literal["min", "max"]

KNEE_TIE = 1e-12
"""Points whose normalised distances differ by less than this are equally good knees: float64 rounding."""


def minimised(columns: Mapping[str, ArrayLike], objectives: Mapping[str, Direction]) -> NDArray[np.float64]:
    """The objectives as one matrix [n, m] in which smaller is better: columns to maximise change sign.

    Raises:
        InputError: an objective that is not a column.
    """
    for name in objectives:
        if name not in columns:
            raise InputError(f"unknown objective {name!r}{did_you_mean(name, columns)}")
    signed = [
        np.asarray(columns[name], dtype=np.float64) * (-1.0 if direction == "max" else 1.0)
        for name, direction in objectives.items()
    ]
    return np.stack(signed, axis=1) if signed else np.empty((0, 0))


def nondominated(values: ArrayLike) -> NDArray[np.bool_]:
    """Which of the points [n, m] no other point dominates, as a mask [n]; all objectives minimised.

    A point dominates another when it is nowhere worse and somewhere better, so equal points keep each other.
    Infinite values are allowed. O(n * size of the front), each step vectorised.

    Raises:
        InputError: a value is NaN, which is neither better nor worse than anything.
    """
    points = _matrix(values)
    mask = np.zeros(len(points), dtype=np.bool_)
    # In lexicographic order nobody is dominated by a later point: the first one left is on the front.
    left = np.lexsort(points.T[::-1]) if points.size else np.empty(0, dtype=np.intp)
    while left.size:
        best = points[left[0]]
        rest = points[left]
        equal = (rest == best).all(axis=1)
        mask[left[equal]] = True
        left = left[(rest < best).any(axis=1)]
    return mask


def knee(values: ArrayLike) -> int:
    """The row of the knee of the points [n, m]; all objectives minimised.

    The rule: take the non-dominated points, bring each objective to [0, 1] over them (its best to 0, its
    worst to 1), and take the point farthest below the hyperplane through the m points that are worst in one
    objective and best in all others. With two objectives that plane is the straight line between the two ends
    of the front. With more it is fixed by the ranges alone, because the real extremes of a front may lie on a
    line and then span no plane. An objective that is the same everywhere has no say.

    Ties, up to rounding, go to the point that is better in the first objective, then in the second and so on,
    then to the lower row. So one point is its own knee, and of two points, whose distances are both zero, the
    one better in the first objective is taken.

    Raises:
        InputError: no points, or a value that is not finite.

    Source: the distance form of the knee in Das, "On characterizing the knee of the Pareto curve based on
    normal-boundary intersection", Structural Optimization 18, 1999.
    """
    points = _matrix(values)
    if not len(points):
        raise InputError("a knee needs at least one point; none was given")
    if not np.isfinite(points).all():
        raise InputError("a knee needs finite values; leave out points with infinite ones")
    rows = np.flatnonzero(nondominated(points))
    front = points[rows]
    low, high = front.min(axis=0), front.max(axis=0)
    # Halves, so that the range of the largest finite numbers does not overflow.
    spread = high / 2 - low / 2
    normal = np.divide(front / 2 - low / 2, spread, out=np.zeros_like(front), where=spread > 0)
    above = normal.sum(axis=1)
    ties = np.flatnonzero(above <= above.min() + KNEE_TIE)
    order = np.lexsort((rows[ties], *front[ties].T[::-1]))
    return int(rows[ties[order[0]]])


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """The volume that the points [n, m] dominate up to the `reference` point [m]; all objectives minimised.

    Points outside the reference add nothing; no points give 0. Computed by pymoo (moocore), exact.

    Raises:
        InputError: a NaN, or a reference of another length than the points.
    """
    points = _matrix(values)
    corner = np.asarray(reference, dtype=np.float64).reshape(-1)
    if not np.isfinite(corner).all():
        raise InputError("the reference point of a hypervolume must be finite")
    if not len(points):
        return 0.0
    if points.shape[1] != corner.size:
        raise InputError(
            f"the reference point has {corner.size} values but the points have {points.shape[1]} objectives"
        )
    inside = points[(points < corner).all(axis=1)]
    if not len(inside):
        return 0.0
    from pymoo.indicators.hv import HV

    indicator: Any = HV(ref_point=corner)
    return float(indicator(inside))


def _matrix(values: ArrayLike) -> NDArray[np.float64]:
    """`values` as float64 [n, m] without NaN."""
    points = np.asarray(values, dtype=np.float64)
    if points.size == 0:
        return points.reshape(0, points.shape[1] if points.ndim == 2 else 0)
    if points.ndim != 2:
        raise InputError(f"points must be a matrix of points and objectives, not of shape {points.shape}")
    rows = np.flatnonzero(np.isnan(points).any(axis=1))
    if rows.size:
        raise InputError(f"point {int(rows[0])} has a value that is not a number; leave it out")
    return points
