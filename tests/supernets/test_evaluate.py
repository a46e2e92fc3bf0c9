from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.errors import InputError
from supernets.evaluate import calibrated, evaluate, recalibrate, resize_to, top1
from supernets.modes import batch_norms
from supernets.supernet import Supernet


@pytest.fixture
def calibration(images) -> list[torch.Tensor]:
    return [images.one(9, n)[0] for n in range(4)]


@pytest.fixture
def data(images) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [images.one(8, n) for n in range(3)]


def statistics(module: nn.Module) -> list[torch.Tensor]:
    return [t for norm in batch_norms(module) for t in (norm.running_mean, norm.running_var)]


def test_statistics_are_the_mean_over_batches_of_their_mean_and_variance(supernet, calibration) -> None:
    module = calibrated(supernet, supernet.space.largest, calibration)
    reference = supernet.extract(supernet.space.largest)
    for norm in batch_norms(reference):
        norm.momentum = None  # torch's cumulative average
        norm.reset_running_stats()
    reference.train()
    reference.drop.eval()
    with torch.no_grad():
        stem = [reference.stem(x) for x in calibration]
        for x in calibration:
            reference(x)
    for mine, theirs in zip(statistics(module), statistics(reference), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    mean = torch.stack([s.mean((0, 2, 3)) for s in stem]).mean(0)
    torch.testing.assert_close(module.bn.running_mean, mean, rtol=1e-5, atol=1e-6)
    assert not module.training
    assert all(norm.momentum == 0.1 for norm in batch_norms(module))


def test_the_order_of_batches_and_a_second_call_change_nothing(supernet, calibration) -> None:
    arch = supernet.space.smallest
    first = statistics(calibrated(supernet, arch, calibration))
    for order in itertools.permutations(calibration):
        other = statistics(calibrated(supernet, arch, order))
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    module = calibrated(supernet, arch, calibration)
    again = recalibrate(module, [resize_to(x, supernet.space.input_shape(arch)) for x in calibration])
    assert all(torch.equal(a, b) for a, b in zip(first, statistics(again), strict=True))


def test_nothing_shared_is_written(supernet, calibration, data) -> None:
    before = {n: t.clone() for n, t in supernet.shared_state().items()}
    random = torch.get_rng_state()
    evaluate(supernet, [supernet.space.largest, supernet.space.smallest], data, calibration)
    assert torch.equal(torch.get_rng_state(), random)
    after = supernet.shared_state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert all(p.grad is None for p in supernet.parameters())


def test_many_archs_in_one_pass_score_as_one_by_one(supernet, calibration, data) -> None:
    space = supernet.space
    archs = space.archs(space.sample(6, np.random.default_rng(0)))
    passes = []

    def once():
        passes.append(1)
        yield from data

    together = evaluate(supernet, archs, once(), calibration)
    assert len(passes) == 1
    assert together.dtype == np.float64
    alone = [evaluate(supernet, [arch], data, calibration)[0] for arch in archs]
    assert together.tolist() == alone
    module = recalibrate(
        supernet.extract(archs[0]), [resize_to(x, space.input_shape(archs[0])) for x in calibration]
    )
    resized = [(resize_to(x, space.input_shape(archs[0])), y) for x, y in data]
    assert top1(module, resized) == alone[0]


def test_sixteen_threads_agree_with_one(supernet, calibration, data) -> None:
    space = supernet.space
    archs = space.archs(space.sample(32, np.random.default_rng(1)))
    archs += archs[:8]  # the same arch in two threads at once
    serial = [evaluate(supernet, [arch], data, calibration)[0] for arch in archs]
    with ThreadPoolExecutor(16) as pool:
        threaded = list(pool.map(lambda arch: evaluate(supernet, [arch], data, calibration)[0], archs))
    assert threaded == serial


def test_a_recalibrated_module_can_be_trained_further(supernet, calibration) -> None:
    module = recalibrate(supernet.extract(supernet.space.largest), calibration).train()
    module(calibration[0]).sum().backward()
    assert module.head.weight.grad is not None


def test_resizing_is_torchvisions_and_nothing_when_equal() -> None:
    from torchvision.transforms.v2.functional import resize

    x = torch.randn(2, 3, 16, 16)
    assert resize_to(x, (3, 16, 16)) is x
    torch.testing.assert_close(resize_to(x, (3, 10, 12)), resize(x, [10, 12], antialias=True))
    tokens = torch.zeros(2, 5)
    assert resize_to(tokens, (1, 2, 2)) is tokens


def test_a_network_without_batch_norm_needs_no_calibration() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).train()
    assert recalibrate(module, []) is module
    assert not module.training
    x, y = torch.eye(3)[:, :, None, None], torch.tensor([0, 1, 0])
    expected = float(
        (F.linear(x.flatten(1), module[1].weight, module[1].bias).argmax(1) == y).double().mean()
    )
    assert top1(module, [(x, y)]) == expected


def test_no_images_are_an_error(supernet, calibration, data) -> None:
    with pytest.raises(InputError, match="calibration"):
        evaluate(supernet, [supernet.space.largest], data, [])
    with pytest.raises(InputError, match="nothing to evaluate on"):
        evaluate(supernet, [supernet.space.largest], [], calibration)
    with pytest.raises(InputError, match="nothing to evaluate on"):
        top1(nn.Linear(1, 1), [])


def test_evaluating_no_arch_gives_no_number(supernet: Supernet, calibration, data) -> None:
    assert evaluate(supernet, [], data, calibration).shape == (0,)
