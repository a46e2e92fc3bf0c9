"""Entries that a step did not use keep their value and their optimiser state.

A slice's gradient is zero outside the slice, yet momentum, weight decay and Adam's averages still move those
entries ("dense", as published). Here they are put back after the optimiser's step, so it works with any
optimiser that treats entries one by one and whose state begins at zero. Counters that an optimiser keeps per
tensor (Adam's step number) count the steps that used any entry of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from search_spaces.arch import Arch
from supernets.supernet import Supernet


@contextmanager
def untouched_kept(
    supernet: Supernet, optimizer: torch.optim.Optimizer, archs: Sequence[Arch]
) -> Iterator[None]:
    """Around `optimizer.step()`: entries that no arch of `archs` uses come out as they went in."""
    touched = supernet.touched(archs)
    kept: list[tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]] = []  # parameter, untouched, values, state
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if parameter.grad is None:
                continue
            if name not in touched:
                parameter.grad = None
                continue
            mask = touched[name]
            if mask is None:
                continue
            untouched = ~mask.to(parameter.device).expand_as(parameter)
            state = {key: value[untouched] for key, value in _entrywise(optimizer, parameter).items()}
            kept.append((parameter, untouched, parameter[untouched], state))
        yield
        for weight, untouched, values, state in kept:
            weight[untouched] = values
            for key, value in _entrywise(optimizer, weight).items():
                # A state that this step made begins at zero where the step used nothing.
                value[untouched] = state.get(key, value.new_zeros(()))


def _entrywise(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The tensors of the optimiser's state that have one entry for each of the parameter's."""
    state = optimizer.state.get(parameter, {})
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and v.shape == parameter.shape}
