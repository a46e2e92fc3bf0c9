"""The number format that the arithmetic of training runs in; the weights stay float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from search_spaces.errors import InputError, did_you_mean

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Within it, what stays in float32 is multiplied as TF32 on CUDA: 10 bits of mantissa, many times faster.

    On a CPU nothing changes; afterwards the setting is what it was.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that autocast computes in; None is float32 throughout.

    "auto" is bf16 on CUDA, which needs no loss scaling, and fp32 elsewhere.

    Raises:
        InputError: an unknown precision, or a device that is absent or cannot do it.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {str(device)!r} is not available here; use 'cpu'")
    known: dict[str, torch.dtype | None] = {
        "auto": torch.bfloat16 if device.type == "cuda" else None,
        "fp32": None,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
    }
    if precision not in known:
        raise InputError(f"unknown precision {precision!r}{did_you_mean(precision, known)}")
    if precision == "fp16" and device.type != "cuda":
        raise InputError(f"precision 'fp16' needs a CUDA device, not {str(device)!r}; use 'bf16' or 'fp32'")
    return known[precision]
