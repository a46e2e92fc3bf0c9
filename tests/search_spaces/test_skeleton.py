"""Copies of a structure stand alone."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from search_spaces.skeleton import Skeleton, remembered


def on_meta(make):
    with torch.device("meta"):
        return make().requires_grad_(False)


def structure(module: nn.Module) -> list[tuple[str, type, str]]:
    return [(name, type(child), child.extra_repr()) for name, child in module.named_modules()]


class Plain(nn.Module):
    """Plain attributes, a tied weight, a buffer of each kind, an absent parameter and an absent module."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4, bias=False)
        self.b = nn.Linear(3, 4)
        self.b.weight = self.a.weight
        self.again = self.a
        self.none = None
        self.register_module("absent", None)
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("computed", torch.zeros(2), persistent=False)
        self.sizes = [1, 2]
        self.act = partial(torch.clamp, min=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.a(x) + self.b(x))


class KeepsAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.order = [(self.second, 1), (self.first, 2)]

    def forward(self, x: Tensor) -> Tensor:
        for layer, factor in self.order:
            x = layer(x) * factor
        return x


class KeepsAMethod(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.run = self.layer.forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


class KeepsAnObject(nn.Module):
    class Holder:
        def __init__(self, module: nn.Module) -> None:
            self.module = module

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.holder = self.Holder(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.holder.module(x)


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.layer.register_forward_hook(self.double)

    def double(self, module: nn.Module, args: object, out: Tensor) -> Tensor:
        return out * (2 if self.layer is module else float("nan"))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("make", [Plain, KeepsAList, KeepsAMethod, KeepsAnObject, Hooked])
def test_a_copy_computes_with_its_own_tensors(make):
    skeleton = Skeleton(on_meta(make))
    reference = make()
    twin = skeleton.copy()
    assert structure(twin) == structure(reference)
    assert list(twin.state_dict()) == list(reference.state_dict())
    values = dict(reference.named_parameters()) | dict(reference.named_buffers())
    for path, child in twin.named_modules():
        for registry in (child._parameters, child._buffers):
            for leaf, tensor in registry.items():
                if tensor is not None:
                    name = f"{path}.{leaf}" if path else leaf
                    registry[leaf] = values.get(name, values.get("a.weight"))
    x = torch.randn(2, 3)
    assert torch.equal(twin(x), reference(x))


def test_copies_share_no_module_tensor_or_registry():
    original = on_meta(lambda: nn.Sequential(Plain(), nn.BatchNorm1d(4)))
    skeleton = Skeleton(original)
    a, b = skeleton.copy(), skeleton.copy()
    for one, two in ((a, b), (a, original)):
        for m, n in zip(one.modules(), two.modules(), strict=True):
            assert m is not n
            for key, value in m.__dict__.items():
                if isinstance(value, dict | list | set):
                    assert value is not n.__dict__[key], key
        tensors = {id(t) for t in (*one.parameters(), *one.buffers())}
        assert tensors.isdisjoint({id(t) for t in (*two.parameters(), *two.buffers())})
    a[0].register_forward_hook(lambda *args: None)
    a[0].sizes.append(3)
    a[0].register_buffer("more", torch.zeros(1))
    assert not b[0]._forward_hooks
    assert b[0].sizes == [1, 2]
    assert "more" not in dict(b[0].named_buffers())
    assert a[0]._non_persistent_buffers_set == {"computed"}


def test_what_was_tied_stays_tied_within_a_copy():
    twin = Skeleton(on_meta(Plain)).copy()
    assert twin.a.weight is twin.b.weight
    assert twin.a is twin.again
    assert isinstance(twin.a.weight, nn.Parameter)


def test_deep_copies_give_the_same_structure_as_fast_ones():
    original = on_meta(Plain)
    assert structure(Skeleton(original).copy()) == structure(copy.deepcopy(original))


def test_remembered_blocks_of_equal_configuration_are_not_tied():
    make = remembered(nn.Linear)
    with torch.device("meta"):
        net = nn.Sequential(make(3, 3), make(3, 3), make(3, 3, bias=False))
    assert len(list(net.parameters())) == 5
    assert len({id(p) for p in net.parameters()}) == 5
    assert net[2].bias is None


def test_blocks_of_every_space_are_tied_only_where_they_were_built_so(any_space):
    skeleton = any_space.skeleton(any_space.largest)
    real = any_space.build(any_space.largest)
    assert [(n, p.shape) for n, p in skeleton.named_parameters()] == [
        (n, p.shape) for n, p in real.named_parameters()
    ]
    assert structure(skeleton) == structure(real)
    again = Skeleton(skeleton).copy()
    assert [(n, p.shape) for n, p in again.named_parameters()] == [
        (n, p.shape) for n, p in real.named_parameters()
    ]


def test_remembered_constructs_for_real_outside_the_meta_device():
    built = []

    @remembered
    def make(size: int, *, bias: bool = True) -> nn.Module:
        built.append(size)
        return nn.Linear(size, size, bias)

    first, second = make(3), make(3)
    assert built == [3, 3]
    assert not torch.equal(first.weight, second.weight)
    assert first.weight.requires_grad
    with torch.device("meta"):
        make(3)
        make(3)
        assert make(3, bias=False).bias is None
    assert built == [3, 3, 3, 3]
    assert make(3).weight.device.type == "cpu"
    assert make.__name__ == "make"


def test_threads_copy_one_skeleton():
    skeleton = Skeleton(on_meta(lambda: nn.Sequential(*(Plain() for _ in range(4)))))
    with ThreadPoolExecutor(16) as pool:
        copies = list(pool.map(lambda _: skeleton.copy(), range(64)))
    assert len({id(p) for c in copies for p in c.parameters()}) == 64 * len(list(copies[0].parameters()))
