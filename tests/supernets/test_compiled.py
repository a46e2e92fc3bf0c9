from __future__ import annotations

import shutil

import pytest
import torch

from search_spaces.errors import InputError
from supernets.compiled import CompiledSubnet, check_compiler
from supernets.losses import soft_targets
from supernets.policies.sandwich import Sandwich
from supernets.step import backward, step_rng
from supernets.supernet import Supernet
from supernets.trainer import train

CPU = torch.device("cpu")


@pytest.fixture
def _compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of processes for a test
    try:
        check_compiler(CPU)
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("_compiler")
def test_the_compiled_largest_is_the_plain_one_also_after_the_weights_have_moved(make_space) -> None:
    """Losses, weights, batch-norm statistics, and the draws of dropout; one graph for all steps."""
    space = make_space(dropout=0.5)
    nets = [Supernet(space, seed=0).train() for _ in range(2)]
    compiled = CompiledSubnet(space, space.largest)
    plan = Sandwich(3).plan(space, step_rng(0, 0))
    x, y = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    for step in range(3):
        losses = []
        for net, run in zip(nets, (compiled, None), strict=True):
            net.zero_grad(set_to_none=True)
            with torch.random.fork_rng([]):
                torch.default_generator.manual_seed(step)
                losses.append(backward(net, plan, x, soft_targets(y, 4), compiled=run)[0])
            with torch.no_grad():
                for parameter in net.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.1 * parameter.grad
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    assert len(compiled._passes) == 1
    for name, tensor in nets[0].shared_state().items():
        torch.testing.assert_close(tensor, nets[1].shared_state()[name], rtol=1e-3, atol=1e-4)


def test_without_a_compiler_it_is_refused_before_work(
    space, images, make_recipe, tmp_path, monkeypatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"compile needs a C\+\+ compiler: no g\+\+"):
        train(Supernet(space), make_recipe(1), images, folder=tmp_path / "run", compile_largest=True)
    assert not (tmp_path / "run").exists()
