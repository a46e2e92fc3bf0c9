"""What training does otherwise on a GPU: TF32, batches changed there and read ahead, one compiled graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nas.data import load_data
from search_spaces import vit
from supernets.compiled import CompiledSubnet
from supernets.policies.sandwich import Sandwich
from supernets.recipe import Phase, Recipe
from supernets.supernet import Supernet
from supernets.trainer import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that torch can see"),
]


@pytest.mark.parametrize("turned", [0.0, 10.0])
def test_batches_changed_on_the_gpu_are_those_of_the_cpu(turned) -> None:
    batches = load_data("digits").train_batches(64, 3)
    how = replace(batches.augmentation, rotation_deg=turned, zoom=turned / 100, flip=True)
    batches = replace(batches, augmentation=how)
    there = replace(batches, device=torch.device("cuda"))
    for (x, y), (a, b) in zip(batches.epoch(1), there.epoch(1), strict=True):
        assert a.is_cuda
        assert b.is_cuda
        assert torch.equal(y, b.cpu())
        torch.testing.assert_close(a.cpu(), x, rtol=1e-4, atol=1e-3)


def test_reading_ahead_changes_nothing_and_the_precision_is_put_back(tmp_path) -> None:
    space = vit.space(classes=10, channels=1, image_size=16, depths=(1, 2), embed_dims=(32, 64))
    recipe = Recipe("r", (Phase(name="p", epochs=2, policy=Sandwich(3), lr=0.01),))
    batches = replace(load_data("digits").train_batches(256, 0), device=torch.device("cuda"))

    class InLine:  # has no `threaded`: nothing is read ahead
        steps = batches.steps
        epoch = staticmethod(batches.epoch)

    before, ends = torch.get_float32_matmul_precision(), []
    for name, data in (("ahead", batches), ("in line", InLine())):
        supernet = Supernet(space, seed=0)
        train(supernet, recipe, data, folder=tmp_path / name, device="cuda")
        ends.append(supernet.shared_state())
    assert torch.get_float32_matmul_precision() == before
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-2, atol=1e-3)


def test_the_compiled_largest_is_the_plain_one() -> None:
    pytest.importorskip("triton", reason="torch.compile needs Triton on a GPU")
    space = vit.space(classes=10, channels=1, image_size=16, depths=(1, 2), embed_dims=(32, 64))
    supernet = Supernet(space, seed=0).to("cuda").train()
    compiled, x = CompiledSubnet(space, space.largest), torch.randn(8, 1, 16, 16, device="cuda")
    for _ in range(2):
        module = supernet.subnet(space.largest)
        torch.testing.assert_close(compiled(module, x), module(x), rtol=1e-3, atol=1e-3)
        with torch.no_grad():
            for parameter in supernet.parameters():
                parameter.mul_(1.01)
