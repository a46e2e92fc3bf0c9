"""What holds for any arch of any space under any scheme: a subnet is a plain network over shared weights."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.resolve import names, resolve
from search_spaces import Arch, Choice, InputError, SearchSpace, SpaceError, mobilenet_v3
from supernets import KernelTransform, Slice, Supernet


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


def scheme_of(name: str):
    return resolve("scheme", name)()


@pytest.fixture(scope="module", params=names("scheme"))
def any_supernet(any_space: SearchSpace, request: pytest.FixtureRequest) -> Supernet:
    """Every space under every scheme, in eval mode. Shared: nobody changes it."""
    return randomise(Supernet(any_space, scheme_of(request.param))).eval()


def draw(space: SearchSpace, n: int, seed: int = 0) -> list[Arch]:
    archs = space.archs(space.sample(n, np.random.default_rng(seed)))
    return [space.largest, space.smallest, *archs]


def images(space: SearchSpace, arch: Arch, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *space.input_shape(arch), generator=generator)


def assert_equal(a: Tensor, b: Tensor, what: object = "") -> None:
    assert a.shape == b.shape
    assert torch.isfinite(a).all()
    difference = (a - b).abs()
    assert torch.equal(a, b), f"{what}: largest difference {difference.max():.3g} at {difference.argmax()}"


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


def test_the_largest_is_the_plain_network_of_the_same_weights(any_supernet):
    space = any_supernet.space
    plain = space.build(space.largest).eval()
    state = any_supernet.shared_state()
    plain.load_state_dict({n: t for n, t in state.items() if not n.startswith("scheme.")})
    x = images(space, space.largest)
    assert_equal(any_supernet(x, space.largest).detach(), plain(x).detach())


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


def test_parameters_are_those_of_the_largest_and_the_scheme(any_supernet):
    shared = {n for n, _ in any_supernet.named_parameters() if n.startswith("shared.")}
    plain = any_supernet.space.build(any_supernet.space.largest)
    assert shared == {f"shared.{n}" for n, _ in plain.named_parameters()}
    own = sum(p.numel() for p in any_supernet.scheme.parameters())
    largest = any_supernet.space.costs(any_supernet.space.index([any_supernet.space.largest])).params[0]
    assert sum(p.numel() for p in any_supernet.parameters()) == largest + own


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
    assert set(any_supernet.touched([space.largest])) >= {
        n for n, _ in any_supernet.named_parameters() if n.startswith("shared.")
    }
    assert any_supernet.touched([]) == {}


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
    x = images(any_space, arch).double()
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


# -- state ---------------------------------------------------------------------------------------------------


def test_the_state_survives_a_round_trip(any_supernet):
    state = {n: t.detach().clone() for n, t in any_supernet.shared_state().items()}
    other = Supernet(any_supernet.space, copy.deepcopy(any_supernet.scheme).__class__(), seed=9)
    pointers = [p.data_ptr() for p in other.parameters()]
    other.load_shared_state(state)
    assert [p.data_ptr() for p in other.parameters()] == pointers
    assert list(other.shared_state()) == list(state)
    assert all(torch.equal(t, state[n]) for n, t in other.shared_state().items())
    assert len(state) == len(any_supernet.state_dict())


def test_a_plain_state_leaves_the_matrices_as_they_are():
    space = mobilenet_v3.space(image_size=16, channels=1, classes=10)
    supernet = randomise(Supernet(space, KernelTransform()))
    matrices = [p.detach().clone() for p in supernet.scheme.parameters()]
    plain = space.build(space.largest).state_dict()
    supernet.load_shared_state(plain)
    assert all(torch.equal(supernet.shared_state()[n], t) for n, t in plain.items())
    assert all(torch.equal(a, b) for a, b in zip(matrices, supernet.scheme.parameters(), strict=True))


def test_a_state_that_does_not_fit_is_refused_and_nothing_changes(any_space):
    supernet = Supernet(any_space, seed=1)
    before = {n: t.detach().clone() for n, t in supernet.shared_state().items()}
    state = {n: t + 1 for n, t in before.items()}
    name = next(reversed(state))
    for wrong, message in (
        ({n: t for n, t in state.items() if n != name}, rf"1 missing \({name}\), 0 unknown"),
        (state | {"extra.weight": torch.zeros(1)}, r"0 missing \(\), 1 unknown \(extra.weight\)"),
        (state | {"scheme.other": torch.zeros(1)}, r"1 unknown \(scheme.other\)"),
        (state | {name: torch.zeros(3, 5)}, rf"{name} is \[3, 5\], not"),
        ({}, "missing"),
    ):
        with pytest.raises(InputError, match=message):
            supernet.load_shared_state(wrong)
        assert all(torch.equal(before[n], t) for n, t in supernet.shared_state().items())


# -- refusals ------------------------------------------------------------------------------------------------


def test_an_arch_of_another_space_is_refused(any_space):
    supernet = Supernet(any_space)
    for use in (supernet.subnet, supernet.extract, lambda arch: supernet.touched([arch])):
        with pytest.raises(SpaceError):
            use(Arch({"nothing": 1}))


def test_options_from_large_to_small_are_refused():
    choices = [Choice("a", (8, 4)), Choice("b", (4, 8))]
    space = SearchSpace("odd", choices, lambda arch: nn.Linear(arch["a"], arch["b"]), input_shape=(8,))
    with pytest.raises(SpaceError, match="order each choice's options from smallest to largest"):
        Supernet(space)


def test_tensors_of_different_ranks_under_one_name_are_refused():
    space = SearchSpace(
        "ranks",
        [Choice("op", ("linear", "conv"))],
        lambda arch: nn.Linear(4, 4) if arch["op"] == "linear" else nn.Conv1d(4, 4, 1),
        input_shape=(4, 4),
    )
    with pytest.raises(SpaceError, match=r"weight 'weight' of 'ranks' .* different ranks"):
        Supernet(space)


def test_print_says_what_it_is(any_space):
    text = repr(Supernet(any_space))
    assert any_space.name in text
    assert "parameters" in text


def test_restricted_spaces_take_the_same_weights(any_space):
    part = any_space.restrict({any_space.choices[-1].name: any_space.choices[-1].options[-1:]})
    whole, narrow = Supernet(any_space, Slice(), seed=4).eval(), Supernet(part, Slice(), seed=4).eval()
    narrow.load_shared_state(whole.shared_state())
    for arch in draw(part, 1):
        x = images(any_space, arch)
        assert_equal(narrow(x, arch).detach(), whole(x, arch).detach())


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
