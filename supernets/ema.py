"""An exponential moving average of the shared tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Ema:
    """Keeps a copy of `state` that follows it; the copy belongs to this object, `state` is only read.

    The decay warms up as (1 + updates) / (10 + updates), so that a short training is not an average of noise.
    """

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Moves the average towards `state`; `updates` counts those before. Integers are copied."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        real = [name for name, tensor in self.state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in real], [state[name] for name in real], 1.0 - decay)
        for name in self.state.keys() - set(real):
            self.state[name].copy_(state[name])

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a saved average."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
