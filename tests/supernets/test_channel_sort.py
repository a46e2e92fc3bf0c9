"""Sorted channels: what each network computes stays, importance falls, and the optimiser's state follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import images, randomise

import search_spaces
from nas.resolve import names, resolve
from search_spaces import InputError, SearchSpace
from supernets import Supernet
from supernets.channel_sort import SortChannels, permute_optimizer, sort_channels
from supernets.optimiser import make_optimizer
from supernets.policies.uniform import Uniform
from supernets.recipe import Phase
from supernets.schemes import KernelTransform

FOLDER = Path(search_spaces.__file__).parent
DECLARED = [name for name in names("space") if "channel_groups=" in (FOLDER / f"{name}.py").read_text()]


@pytest.fixture(params=DECLARED)
def supernet(request: pytest.FixtureRequest) -> Supernet:
    """Every space that declares channels which change places, with weights of no special value."""
    space = resolve("space", request.param)(image_size=16, channels=1, classes=10)
    return randomise(Supernet(space, KernelTransform())).eval()


def outputs(supernet: Supernet, part: SearchSpace, n: int = 6) -> list[torch.Tensor]:
    archs = [part.largest, part.smallest, *part.archs(part.sample(n, np.random.default_rng(1)))]
    with torch.no_grad():
        return [supernet(images(part, arch), arch) for arch in archs]


def assert_same(before: list[torch.Tensor], after: list[torch.Tensor]) -> None:
    for a, b in zip(before, after, strict=True):
        scale = a.abs().max()
        assert (a - b).abs().max() <= 2e-5 * scale, f"largest difference {(a - b).abs().max() / scale:.2g}"


def importance(supernet: Supernet) -> dict[str, torch.Tensor]:
    found = {}
    for group in supernet.space.channel_groups:
        weights = supernet.shared[group.read_by].detach()
        axis = group.tensors[group.read_by]
        found[group.read_by] = weights.abs().sum([a for a in range(weights.dim()) if a != axis])
    return found


def falls(values: torch.Tensor) -> bool:
    return bool((values[1:] <= values[:-1] * (1 + 1e-5)).all())


def test_a_full_width_network_computes_what_it_did(supernet) -> None:
    """At every kernel, depth and resolution."""
    part = supernet.space.restrict({name: 1 for g in supernet.space.channel_groups for name in g.choices})
    before, weights = outputs(supernet, part), {n: t.clone() for n, t in supernet.shared_state().items()}
    assert not all(falls(v) for v in importance(supernet).values())
    sort_channels(supernet)
    assert any(not torch.equal(t, weights[n]) for n, t in supernet.shared_state().items())
    assert_same(before, outputs(supernet, part))
    assert all(falls(v) for v in importance(supernet).values())
    kept = {n for n in weights if n.startswith("scheme.")}
    assert all(torch.equal(supernet.shared_state()[n], weights[n]) for n in kept)


def test_sorting_twice_is_sorting_once(supernet) -> None:
    sort_channels(supernet)
    once = {n: t.clone() for n, t in supernet.shared_state().items()}
    sort_channels(supernet)
    for name, tensor in supernet.shared_state().items():
        torch.testing.assert_close(tensor, once[name], rtol=0, atol=0)


def test_a_narrow_network_takes_the_most_important_channels(supernet) -> None:
    group = supernet.space.channel_groups[0]
    values = importance(supernet)[group.read_by]
    sort_channels(supernet)
    small = supernet.extract(supernet.space.smallest).get_parameter(group.read_by)
    axis = group.tensors[group.read_by]
    kept = small.detach().abs().sum([a for a in range(small.dim()) if a != axis])
    if small.shape[1 - axis] == supernet.shared[group.read_by].shape[1 - axis]:  # else it reads less, too
        torch.testing.assert_close(kept.sort().values, values.sort().values[-len(kept) :])


def test_channels_stay_within_the_widths_that_were_trained(supernet) -> None:
    trained = {"*": 2, "resolution": 99, "*kernel": 99, "*depth": 99}
    part = supernet.space.restrict(trained)
    before = outputs(supernet, part, n=10)
    moved = sort_channels(supernet, trained)
    assert_same(before, outputs(supernet, part, n=10))
    for group in supernet.space.channel_groups:
        axis = group.tensors[group.read_by]
        order = dict(moved[group.read_by])[axis]
        assert order.sort().values.tolist() == list(range(len(order)))
        narrow = {c.name: c.options[0] for c in part.choices if c.name in group.choices}
        arch = supernet.space.arch({**part.largest, **narrow})
        small = supernet.space.skeleton(arch).get_parameter(group.read_by)
        width = small.shape[axis]
        assert set(order[:width].tolist()) == set(range(width))
        values = importance(supernet)[group.read_by]
        assert falls(values[:width])


def test_the_entry_of_a_phase_sorts_and_describes_itself(supernet) -> None:
    entry = SortChannels({"*": 2})
    phase = Phase(name="p", epochs=1, policy=Uniform(), at_entry=(entry,))
    assert "SortChannels(trained={'*': 2})" in phase.describe()["at_entry"][0]
    other = Supernet(supernet.space, KernelTransform())
    other.load_shared_state(supernet.shared_state())
    entry(supernet)
    sort_channels(other, {"*": 2})
    mine, its = supernet.shared_state(), other.shared_state()
    assert all(torch.equal(mine[name], its[name]) for name in mine)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_optimiser_s_state_follows(supernet, optimizer) -> None:
    """Sorted between two steps, training goes on as if nothing had been sorted."""
    space, arch = supernet.space, supernet.space.largest
    other = Supernet(space, KernelTransform()).eval()
    other.load_shared_state(supernet.shared_state())
    phase = Phase(name="p", epochs=1, policy=Uniform(), optimizer=optimizer, lr=1e-3, weight_decay=1e-2)
    for net, sort in ((supernet, True), (other, False)):
        moves = make_optimizer(net, phase)
        for step in range(3):
            if step == 1 and sort:
                permute_optimizer(net, moves, sort_channels(net))
            moves.zero_grad(set_to_none=True)
            net(images(space, arch, seed=step), arch).square().mean().backward()
            moves.step()
    assert_same(*([net(images(space, arch, seed=9), arch).detach()] for net in (supernet, other)))


def test_state_that_cannot_follow_is_refused(supernet) -> None:
    """Factored moments, as Adafactor keeps them: one value per row of a matrix."""
    moves = torch.optim.SGD(supernet.parameters())
    moved = sort_channels(supernet)
    weights = supernet.shared[next(iter(moved))]
    moves.state[weights] = {"step": torch.tensor(3.0), "rows": torch.zeros(len(weights))}
    with pytest.raises(InputError, match=r"rows of SGD is \[.*it cannot follow sorted channels"):
        permute_optimizer(supernet, moves, moved)
