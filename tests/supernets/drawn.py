"""Archs, inputs and weights for the tests of supernets, and how to compare what they give."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from search_spaces import Arch, SearchSpace
from supernets import Supernet


def randomise(supernet: Supernet, seed: int = 0) -> Supernet:
    """No weight at its special first value (zero, one, identity), and BatchNorm as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in supernet.shared_state().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return supernet


def draw(space: SearchSpace, n: int, seed: int = 0) -> list[Arch]:
    archs = space.archs(space.sample(n, np.random.default_rng(seed)))
    return [space.largest, space.smallest, *archs]


def images(space: SearchSpace, arch: Arch, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *space.input_shape(arch))
    if not space.input_dtype.is_floating_point:
        return torch.randint(space.classes, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def assert_equal(a: Tensor, b: Tensor, what: object = "") -> None:
    assert a.shape == b.shape
    assert torch.isfinite(a).all()
    difference = (a - b).abs()
    assert torch.equal(a, b), f"{what}: largest difference {difference.max():.3g} at {difference.argmax()}"
