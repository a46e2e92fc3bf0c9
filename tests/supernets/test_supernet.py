"""What holds for any arch of any space under any scheme: a subnet is a plain network over shared weights."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from drawn import assert_equal, draw, images, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.resolve import names, resolve
from search_spaces import Arch, mobilenet_v3
from supernets import KernelTransform, Supernet

# -- equality ------------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_subnet_equals_extract_bit_for_bit(any_supernet, seed):
    space = any_supernet.space
    (arch,) = space.archs(space.sample(1, np.random.default_rng(seed)))
    x = images(space, arch, seed=seed)
    with torch.no_grad():
        expected = any_supernet.extract(arch)(x)
        assert_equal(any_supernet.subnet(arch)(x), expected, arch)
        assert_equal(any_supernet(x, arch), expected, arch)
    assert_equal(any_supernet(x, arch).detach(), expected, arch)  # with gradients recorded too


@pytest.mark.parametrize("name", names("space"))
def test_at_full_size(name):
    space = resolve("space", name)()
    supernet = randomise(Supernet(space)).eval()
    arch = draw(space, 1)[2]
    x = images(space, arch, batch=1)
    with torch.no_grad():
        assert_equal(supernet(x, arch), supernet.extract(arch)(x), arch)


def test_the_largest_is_the_plain_network_of_the_same_weights(plainly_stored):
    space = plainly_stored.space
    plain = space.build(space.largest).eval()
    state = plainly_stored.shared_state()
    plain.load_state_dict({n: t for n, t in state.items() if not n.startswith("scheme.")})
    x = images(space, space.largest)
    assert_equal(plainly_stored(x, space.largest).detach(), plain(x).detach())


def test_an_extracted_network_is_a_plain_one(any_supernet):
    space = any_supernet.space
    for arch in draw(space, 1):
        model = any_supernet.extract(arch)
        plain = space.build(arch)
        plain.load_state_dict(model.state_dict())
        x = images(space, arch)
        assert_equal(plain.eval()(x).detach(), model(x).detach(), arch)
        assert [n for n, _ in plain.named_parameters()] == [n for n, _ in model.named_parameters()]
        assert all(p.is_leaf and p.requires_grad and p.is_contiguous() for p in model.parameters())
        assert not any(m.training for m in model.modules())
        count = sum(p.numel() for p in model.parameters())
        assert count == space.costs(space.index([arch])).params[0]


def test_parameters_are_those_of_the_largest_and_the_scheme(plainly_stored):
    shared = {n for n, _ in plainly_stored.named_parameters() if n.startswith("shared.")}
    plain = plainly_stored.space.build(plainly_stored.space.largest)
    assert shared == {f"shared.{n}" for n, _ in plain.named_parameters()}
    own = sum(p.numel() for p in plainly_stored.scheme.parameters())
    largest = plainly_stored.space.costs(plainly_stored.space.index([plainly_stored.space.largest])).params[0]
    assert sum(p.numel() for p in plainly_stored.parameters()) == largest + own


# -- sharing -------------------------------------------------------------------------------------------------


def test_training_an_extracted_network_leaves_the_supernet_alone(any_supernet):
    space = any_supernet.space
    before = {n: t.detach().clone() for n, t in any_supernet.shared_state().items()}
    model = any_supernet.extract(space.smallest).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(images(space, space.smallest, batch=4)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(before[n], t) for n, t in any_supernet.shared_state().items())
    assert all(p.grad is None for p in any_supernet.parameters())


def test_smaller_tensors_are_views_of_the_shared_ones(any_space):
    supernet = Supernet(any_space)
    storages = {n: t.untyped_storage().data_ptr() for n, t in supernet.shared_state().items()}
    by_rule = 0
    for arch in draw(any_space, 3):
        for name, tensor in (subnet := supernet.subnet(arch)).state_dict(keep_vars=True).items():
            is_view = tensor.untyped_storage().data_ptr() == storages[name]
            ruled = any(name.startswith("blocks.") and ".attn.qkv." in name for _ in any_space.rules)
            assert is_view or ruled, name
            by_rule += not is_view
        assert len(list(subnet.parameters())) <= len(storages)
    assert bool(by_rule) == bool(any_space.rules)


def test_two_subnets_are_alive_at_once(any_supernet):
    space = any_supernet.space
    archs = draw(space, 2, seed=5)
    subnets = [any_supernet.subnet(arch) for arch in archs]
    again = [any_supernet.subnet(arch) for arch in reversed(archs)]
    with torch.no_grad():
        for arch, subnet, twin in zip(archs, subnets, reversed(again), strict=True):
            x = images(space, arch)
            expected = any_supernet.extract(arch)(x)
            assert_equal(subnet(x), expected, arch)
            assert_equal(twin(x), expected, arch)
    modules = [id(m) for net in (*subnets, *again) for m in net.modules()]
    assert len(set(modules)) == len(modules)


def test_sixteen_threads_give_what_one_gives(any_supernet):
    space = any_supernet.space
    archs = draw(space, 14, seed=6)

    def evaluate(arch: Arch) -> Tensor:
        with torch.no_grad():
            return any_supernet(images(space, arch), arch)

    serial = [evaluate(arch) for arch in archs]
    with ThreadPoolExecutor(16) as pool:
        threaded = list(pool.map(evaluate, archs * 2))
    for arch, a, b in zip(archs * 2, serial * 2, threaded, strict=True):
        assert_equal(b, a, arch)


# -- randomness ----------------------------------------------------------------------------------------------


def test_making_and_drawing_leave_the_global_random_states_alone(any_space):
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002
    random.seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    supernet = Supernet(any_space, KernelTransform(), seed=5)
    for arch in draw(any_space, 2):
        supernet.subnet(arch)
        supernet.extract(arch)
        supernet.touched([arch])
    any_space.costs(any_space.sample(3, np.random.default_rng(0)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_the_seed_decides_the_initial_values(any_space):
    torch.manual_seed(1)
    first = Supernet(any_space, seed=1).shared_state()
    torch.manual_seed(2)
    same = Supernet(any_space, seed=1).shared_state()
    other = Supernet(any_space, seed=2).shared_state()
    assert all(torch.equal(first[n], same[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


# -- modes ---------------------------------------------------------------------------------------------------


def test_training_updates_the_running_statistics_of_the_slice_only():
    space = mobilenet_v3.space(image_size=16, channels=1, classes=10)
    supernet = Supernet(space).train()
    before = {n: t.clone() for n, t in supernet.shared_state().items() if "running" in n}
    arch = space.arch({c.name: c.options[-1] for c in space.choices} | {"stage1.block1.expand": 2})
    supernet(images(space, arch, batch=4), arch)
    name = "blocks.1.0.bn1.running_mean"
    changed = supernet.shared_state()[name] != before[name]
    width = next(p for n, p in supernet.subnet(arch).named_buffers() if n == name).numel()
    assert width == len(changed) // 2
    assert changed[:width].all()
    assert not changed[width:].any()
    after = {n: t.clone() for n, t in supernet.shared_state().items()}
    supernet.extract(arch).train()(images(space, arch, batch=4, seed=1))
    assert all(torch.equal(after[n], t) for n, t in supernet.shared_state().items())


def test_a_subnet_has_the_mode_of_the_supernet(any_space):
    supernet = Supernet(any_space)
    for training in (True, False, True):
        supernet.train(training)
        for _ in range(2):
            assert {m.training for m in supernet.subnet(any_space.smallest).modules()} == {training}
            assert not any(m.training for m in supernet.extract(any_space.smallest).modules())


def test_another_precision(any_space):
    supernet = Supernet(any_space).double().eval()
    arch = any_space.smallest
    x = images(any_space, arch)
    x = x.double() if x.is_floating_point() else x
    assert supernet.extract(arch)(x).dtype == torch.float64
    assert_equal(supernet(x, arch).detach(), supernet.extract(arch)(x).detach())


def test_a_copy_of_a_supernet_has_weights_of_its_own(any_space):
    supernet = Supernet(any_space).eval()
    arch = any_space.smallest
    x = images(any_space, arch)
    before = supernet(x, arch).detach()
    twin = copy.deepcopy(supernet)
    assert_equal(twin(x, arch).detach(), before)
    randomise(twin)
    assert not torch.equal(twin(x, arch), before)
    assert_equal(supernet(x, arch).detach(), before)


# -- on a GPU ------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can see")
def test_on_a_gpu_outputs_are_equal_and_its_random_state_is_left_alone(any_space):
    before = torch.cuda.get_rng_state()
    supernet = randomise(Supernet(any_space, seed=3)).eval()
    assert torch.equal(torch.cuda.get_rng_state(), before)
    supernet.cuda()
    for arch in draw(any_space, 2):
        x = images(any_space, arch).cuda()
        with torch.no_grad():
            assert_equal(supernet(x, arch), supernet.extract(arch)(x), arch)
        assert {t.device.type for t in supernet.extract(arch).state_dict().values()} == {"cuda"}
