"""Gradients reach what an arch reads, `touched` says what that is, and nothing else has an influence."""

from __future__ import annotations

import copy

import torch
from drawn import assert_equal, draw, images, randomise
from torch import Tensor

from search_spaces import mobilenet_v3
from supernets import Supernet


def gradients(supernet: Supernet) -> dict[str, Tensor | None]:
    return {n: None if p.grad is None else p.grad.clone() for n, p in supernet.named_parameters()}


def test_touched_is_exactly_where_gradients_can_be(any_supernet):
    """A probe whose derivative by every number of a subnet is positive, pulled back to the shared tensors."""
    space = any_supernet.space
    shapes = {n: p.shape for n, p in any_supernet.named_parameters()}
    for arch in draw(space, 3, seed=1):
        any_supernet.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(0)
        subnet = any_supernet.subnet(arch)
        sum(
            (p * (0.5 + torch.rand(p.shape, generator=generator))).sum() for p in subnet.parameters()
        ).backward()
        touched = any_supernet.touched([arch])
        for name, grad in gradients(any_supernet).items():
            if name not in touched:
                assert grad is None or not grad.any(), name
                continue
            mask = touched[name]
            assert grad is not None, name
            if mask is None:
                assert grad.all(), name
            else:
                assert mask.shape == shapes[name]
                assert torch.equal(mask, grad != 0), name
    any_supernet.zero_grad(set_to_none=True)


def test_gradients_of_a_loss_reach_only_what_is_touched(any_supernet):
    space = any_supernet.space
    for arch in draw(space, 1, seed=2)[1:]:
        any_supernet.zero_grad(set_to_none=True)
        any_supernet(images(space, arch), arch).square().sum().backward()
        touched = any_supernet.touched([arch])
        reached = 0
        for name, grad in gradients(any_supernet).items():
            mask = touched.get(name, torch.zeros(1, dtype=torch.bool))
            if grad is not None and mask is not None:
                assert not (grad * ~mask).any(), name
            reached += grad is not None and bool(grad.any())
        assert reached > 0.9 * len(touched)
    any_supernet.zero_grad(set_to_none=True)


def test_touched_of_several_archs_is_the_union(any_supernet):
    space = any_supernet.space
    archs = draw(space, 2, seed=3)[1:]
    together = any_supernet.touched(archs)
    singles = [any_supernet.touched([arch]) for arch in archs]
    assert set(together) == set().union(*singles)
    for name, parameter in any_supernet.named_parameters():
        if name in together:
            masks = [t[name] for t in singles if name in t]
            whole = [torch.ones(parameter.shape, dtype=torch.bool) if m is None else m for m in masks]
            union = torch.stack(whole).any(0)
            mask = together[name]
            assert torch.equal(torch.ones_like(union) if mask is None else mask, union)
    assert any_supernet.touched([]) == {}


def test_the_largest_touches_everything_but_the_scheme_s_own(plainly_stored):
    shared = {n for n, _ in plainly_stored.named_parameters() if n.startswith("shared.")}
    assert set(plainly_stored.touched([plainly_stored.space.largest])) >= shared


def test_nothing_untouched_has_an_influence(any_supernet):
    """Deeper blocks, wider channels, other kernels, matrices outside the chain may be anything."""
    space = any_supernet.space
    other = copy.deepcopy(any_supernet)
    for arch in draw(space, 2, seed=4)[1:]:
        other.load_state_dict(any_supernet.state_dict())
        touched = other.touched([arch])
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                mask = touched.get(name, torch.zeros(parameter.shape, dtype=torch.bool))
                if mask is not None:
                    parameter[~mask] = 1e6
        x = images(space, arch)
        with torch.no_grad():
            assert_equal(other(x, arch), any_supernet(x, arch), arch)


def test_a_network_of_depth_d_does_not_see_deeper_blocks():
    space = mobilenet_v3.space(image_size=16, channels=1, classes=10)
    arch = space.arch({c.name: c.options[-1] for c in space.choices} | {"stage2.depth": 2})
    supernet = randomise(Supernet(space)).eval()
    x = images(space, arch)
    supernet(x, arch).sum().backward()
    before = supernet(x, arch).detach()
    for name, parameter in supernet.named_parameters():
        deeper = name.startswith(("shared.blocks.2.2.", "shared.blocks.2.3."))
        assert (parameter.grad is None) == deeper, name
        if deeper:
            parameter.data.fill_(float("nan"))
    assert_equal(supernet(x, arch).detach(), before)
    assert torch.isnan(supernet(images(space, space.largest), space.largest)).any()


def test_the_gradient_of_two_subnets_is_the_sum_of_theirs(any_supernet):
    space = any_supernet.space
    total: dict[str, Tensor] = {}
    archs = draw(space, 0)
    for arch in archs:
        any_supernet.zero_grad(set_to_none=True)
        any_supernet(images(space, arch), arch).square().sum().backward()
        for name, grad in gradients(any_supernet).items():
            if grad is not None:
                total[name] = total[name] + grad if name in total else grad
    any_supernet.zero_grad(set_to_none=True)
    subnets = [any_supernet.subnet(arch) for arch in archs]
    for arch, subnet in zip(archs, subnets, strict=True):
        subnet(images(space, arch)).square().sum().backward()
    for name, grad in gradients(any_supernet).items():
        assert grad is None or torch.equal(grad, total[name]), name
    any_supernet.zero_grad(set_to_none=True)
