"""Arrays of foreign shape and type as [N, C, H, W] images and class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.data.report import shown
from nas.data.splits import Indices
from search_spaces.errors import InputError

_MOST_CHANNELS = 4


def as_images(array: NDArray[Any], where: str) -> Tensor:
    """[N, H, W], [N, H, W, C] or [N, C, H, W] as [N, C, H, W]: uint8 if the values are 0-255, else float32.

    Raises:
        InputError: another shape, a shape that reads both ways, or values that are no finite numbers.
    """
    shape = "x".join(str(length) for length in array.shape)
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(
            f"{where}: images of shape {shape}; expected [n, h, w], [n, h, w, c] or [n, c, h, w]"
        )
    if array.ndim == 3:
        array = array[:, None]
    else:
        first, last = array.shape[1] <= _MOST_CHANNELS, array.shape[3] <= _MOST_CHANNELS
        if first == last:
            problem = "does not say which axis is the channels" if first else "has no axis of 1 to 4 channels"
            raise InputError(
                f"{where}: images of shape {shape}: this {problem}; use [n, h, w, c] or [n, c, h, w]"
            )
        if last:
            array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(_values(array, where)))


def as_classes(
    labels: NDArray[Any], names: Sequence[str] | None, where: str
) -> tuple[Indices, tuple[str, ...]]:
    """(class numbers [N], class names) from integers, strings, [N, 1] or one-hot rows.

    Raises:
        InputError: labels of another kind, or outside `names`.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if (
        labels.ndim == 2
        and labels.dtype.kind in "iufb"
        and (labels.sum(1) == 1).all()
        and (labels.max(1) == 1).all()
    ):
        names = names or tuple(str(k) for k in range(labels.shape[1]))
        labels = labels.argmax(1)
    if labels.ndim != 1 or labels.dtype.kind not in "iufbUS":
        raise InputError(
            f"{where}: labels of shape {labels.shape} and type {labels.dtype}; expected one per image"
        )
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
            raise InputError(f"{where}: labels are fractions; expected class numbers")
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind in "iu" and names is not None:
        low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
        if low < 0 or high >= len(names):
            raise InputError(
                f"{where}: labels go from {low} to {high} but there are {len(names)} class names"
            )
        return labels.astype(np.int64), tuple(names)
    values, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int64), tuple(shown(str(value)) for value in values)


def _values(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where}: images of type {array.dtype}; expected integers or floats")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            f"{where}: {np.count_nonzero(~np.isfinite(array))} values of the images are not finite"
        )
    low, high = float(array.min()), float(array.max())
    bytes_fit = low >= 0 and 1 < high <= 255 and (array.dtype.kind in "iu" or (array == np.rint(array)).all())
    return array.astype(np.uint8 if bytes_fit else np.float32)
