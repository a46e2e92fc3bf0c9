"""A tree of tensors reads like a mapping and moves like a module."""

from __future__ import annotations

import copy

import torch
from torch import nn

from supernets.tensors import TensorTree


def tree() -> TensorTree:
    made = TensorTree()
    made.put("blocks.0.weight", nn.Parameter(torch.ones(2, 3)))
    made.put("blocks.0.running_mean", torch.zeros(3))
    made.put("scale", nn.Parameter(torch.ones(())))
    made.put("blocks.1.weight", nn.Parameter(torch.ones(4)))
    return made


def test_a_mapping_in_the_order_of_put():
    made = tree()
    assert list(made) == ["blocks.0.weight", "blocks.0.running_mean", "scale", "blocks.1.weight"]
    assert list(made.keys()) == list(made)
    assert len(made) == 4
    assert "scale" in made
    assert "blocks" not in made
    assert made["blocks.0.weight"] is dict(made.named_parameters())["blocks.0.weight"]
    assert made["blocks.0.running_mean"] is dict(made.named_buffers())["blocks.0.running_mean"]
    assert set(made.state_dict()) == set(made)
    assert repr(made) == "TensorTree(4 tensors)"


def test_it_follows_when_its_tensors_are_replaced():
    made = tree().double()
    assert made["blocks.0.running_mean"].dtype == torch.float64
    assert made["scale"].dtype == torch.float64
    made.to("meta")
    assert all(made[name].is_meta for name in made)


def test_a_copy_reads_its_own_tensors():
    made = tree()
    twin = copy.deepcopy(made)
    with torch.no_grad():
        twin["blocks.0.weight"].zero_()
    assert made["blocks.0.weight"].sum() == 6
    assert twin["blocks.0.weight"] is dict(twin.named_parameters())["blocks.0.weight"]


def test_a_state_dict_round_trip():
    made, other = tree(), tree()
    with torch.no_grad():
        for name in made:
            made[name].uniform_()
    other.load_state_dict(made.state_dict())
    assert all(torch.equal(made[name], other[name]) for name in made)


def test_names_that_share_a_path():
    made = TensorTree()
    made.put("a.b.weight", torch.zeros(1))
    made.put("a.weight", torch.ones(1))
    made.put("weight", torch.ones(2))
    assert [made[n].numel() for n in ("a.b.weight", "a.weight", "weight")] == [1, 1, 2]
