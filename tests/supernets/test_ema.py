from __future__ import annotations

import torch
from timm.utils import ModelEmaV3
from torch import nn

from supernets.ema import Ema


def test_it_is_the_recurrence_with_a_warm_up() -> None:
    state = {"w": torch.zeros(3), "n": torch.tensor(0)}
    ema = Ema(state, decay=0.5)
    expected = torch.zeros(3)
    for k in range(12):
        state = {"w": torch.full((3,), float(k)), "n": torch.tensor(k)}
        ema.update(state, k)
        decay = min(0.5, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay) * state["w"]
        torch.testing.assert_close(ema.state["w"], expected)
        assert ema.state["n"] == k


def test_without_warm_up_it_agrees_with_timm() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    reference, ema = ModelEmaV3(model, decay=0.9), Ema(model.state_dict(), decay=0.9)
    for step in range(5):
        with torch.no_grad():
            model.weight += torch.randn(3, 4)
        reference.update(model)
        ema.update(model.state_dict(), 10**6 + step)
    for name, tensor in reference.module.state_dict().items():
        torch.testing.assert_close(ema.state[name], tensor)


def test_it_owns_its_copy() -> None:
    state = {"w": torch.ones(2)}
    ema = Ema(state, 0.9)
    state["w"] += 1
    assert ema.state["w"].tolist() == [1, 1]
    ema.load({"w": torch.full((2,), 5.0)})
    assert ema.state["w"].tolist() == [5, 5]
