"""Random generators derived from a seed and a position, so that any batch can be made again on its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# What a stream is for. Two uses of one (seed, epoch) must not share their draws.
TEST_SPLIT, VALIDATION_SPLIT, ORDER, CALIBRATION, AUGMENT, PICTURE = range(6)


def stream(use: int, *position: int) -> np.random.Generator:
    """A NumPy generator for `use` at `position`, for instance (seed, epoch)."""
    return np.random.default_rng([use, *position])


def torch_stream(use: int, *position: int) -> torch.Generator:
    """A torch generator (CPU) for `use` at `position`."""
    return torch.Generator().manual_seed(_number(use, *position))


@contextmanager
def global_streams(use: int, *position: int) -> Iterator[None]:
    """Inside, `random`, `numpy.random` and torch's CPU generator start from `position`; then as before.

    For code of others that draws from the global generators. `torch.manual_seed` is not used: it would
    also seed every GPU.
    """
    number = _number(use, *position)
    # The legacy functions are the ones that the foreign code draws from.
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        random.seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(number)
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])  # noqa: NPY002
        torch.set_rng_state(saved[2])


def _number(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
