"""Objectives: exact counts, the numbers of a target as they are, accuracy of extracted networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.data import load_data
from nas.objectives import Limit, accuracy, counted, latency, one_pass, perplexity
from nas.searchers.searcher import everything
from predictors import targets
from search_spaces.gpt import space as gpt
from search_spaces.mobilenet_v3 import space as mobilenet
from supernets import Supernet
from supernets.evaluate import recalibrate, scores, top1

SPACE = mobilenet(
    classes=10, channels=1, image_size=8, width=0.5, depths=(1, 2), kernels=(3,), expands=(2, 3), dropout=0.0
)
EVERY = everything(SPACE)


@given(st.lists(st.integers(0, len(EVERY) - 1), max_size=5))
def test_counts_are_those_of_the_network_itself(rows) -> None:
    population = EVERY[rows]
    params = counted(SPACE, "params").evaluate(population)
    assert params.dtype == np.float64
    built = [SPACE.build(arch) for arch in SPACE.archs(population)]
    assert params.tolist() == [sum(p.numel() for p in module.parameters()) for module in built]


def test_macs_and_memory_are_those_of_the_traced_layers() -> None:
    population = EVERY[:3]
    layers = [SPACE.layers(arch) for arch in SPACE.archs(population)]
    macs = counted(SPACE, "macs").evaluate(population)
    assert macs.tolist() == [sum(layer.macs for layer in of) for of in layers]
    memory = counted(SPACE, "memory")
    written = [sum(layer.output_bytes for layer in of) for of in layers]
    costs = SPACE.costs(population)
    assert costs.activation_bytes.tolist() == written
    assert memory.evaluate(population).tolist() == (costs.weight_bytes + written).tolist()
    assert memory.unit == "B"


@pytest.mark.parametrize("name", ["params", "macs", "memory"])
def test_counts_are_cheap_minimised_and_called_computed(name) -> None:
    objective = counted(SPACE, name)
    assert (objective.cheap, objective.direction, objective.provenance.kind) == (True, "minimize", "computed")
    values = objective.evaluate(EVERY)
    assert (values > 0).all()
    assert objective.minimised(values).tolist() == values.tolist()
    ends = objective.evaluate(SPACE.index([SPACE.smallest, SPACE.largest]))
    assert (ends[0], ends[1]) == (values.min(), values.max())


def test_latency_is_what_the_target_says_with_its_provenance() -> None:
    target = targets.find("jetson", batch=4)
    objective = latency(SPACE, target)
    assert objective.unit == "ms"
    assert objective.cheap
    assert objective.provenance == target.provenance
    assert objective.provenance.kind == "estimated"
    assert objective.evaluate(EVERY[:9]).tolist() == target.latency(SPACE, EVERY[:9]).tolist()
    here = latency(SPACE, targets.find("cpu"))
    assert not here.cheap
    assert here.provenance.kind == "measured"


def test_accuracy_is_that_of_the_extracted_and_recalibrated_network() -> None:
    data = load_data("digits", image_size=8)
    supernet = Supernet(SPACE, seed=1)
    with torch.no_grad():
        for tensor in supernet.parameters():  # no network should be as good as another
            tensor.add_(torch.randn_like(tensor) * 0.2)
    calibration = [x for x, _ in data.calibration_batches()]
    batches = data.validation_batches(100)
    objective = accuracy(one_pass(supernet, batches, calibration), "359 validation images", "cpu")
    population = EVERY[[0, 100, -1]]
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    values = objective.evaluate(population)
    one_by_one = [
        top1(recalibrate(supernet.extract(arch), calibration), batches) for arch in SPACE.archs(population)
    ]
    assert values.tolist() == one_by_one
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    assert objective.minimised(values).tolist() == (-values).tolist()
    assert (objective.direction, objective.cheap, objective.provenance.kind) == (
        "maximize",
        False,
        "measured",
    )
    assert "359 validation images" in objective.provenance.detail


def test_perplexity_and_accuracy_of_a_population_cost_one_pass() -> None:
    class Windows(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    space = gpt(classes=7, context=5, depths=(1,), embed_dims=(8, 16), head_dim=4)
    tokens = torch.randint(7, (6, 6), generator=torch.Generator().manual_seed(0))
    batches = Windows([(tokens[:, :-1], tokens[:, 1:])])
    supernet = Supernet(space, seed=1)
    run = one_pass(supernet, batches, [])
    hits, perplexed = accuracy(run, "30 tokens", "cpu"), perplexity(run, "30 tokens", "cpu")
    population = space.sample(4, np.random.default_rng(0))
    found = scores(supernet, space.archs(population), list(batches), [])
    batches.passes = 0
    assert perplexed.evaluate(population).tolist() == np.exp(found.loss).tolist()
    assert hits.evaluate(population).tolist() == found.accuracy.tolist()
    assert batches.passes == 1
    assert perplexed.evaluate(population[:2]).tolist() == pytest.approx(np.exp(found.loss[:2]).tolist())
    assert batches.passes == 2
    assert (perplexed.name, perplexed.unit, perplexed.direction) == ("perplexity", "", "minimize")
    assert (perplexed.cheap, perplexed.provenance.kind) == (False, "measured")


def test_a_limit_is_kept_up_to_the_bound_itself() -> None:
    params = counted(SPACE, "params")
    smallest = params.evaluate(SPACE.index([SPACE.smallest]))
    assert Limit(params, float(smallest[0])).violation(smallest).tolist() == [0.0]
    assert Limit(params, float(smallest[0]) - 1).violation(smallest)[0] > 0
    assert Limit(params, 3e4).name == "params"
