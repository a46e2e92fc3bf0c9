"""Targets by name, and this machine as one of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from predictors import targets
from predictors.devices import spec_sheet
from predictors.host import HostTarget
from predictors.measure import Timing
from predictors.target import Target
from search_spaces.choice import Choice
from search_spaces.errors import InputError
from search_spaces.gpt import space as gpt
from search_spaces.space import SearchSpace

QUICK = Timing(warmup_s=0.0, min_s=0.0, repeats=5, max_s=0.2)


def space() -> SearchSpace:
    def build(arch):
        return nn.Sequential(nn.Conv2d(3, arch.integer("width"), 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    choices = [Choice("width", (4, 8, 16)), Choice("resolution", (8, 16))]
    return SearchSpace("tiny", choices, build, input_shape=(3, 16, 16))


def test_jetson_is_an_alias_and_says_so() -> None:
    target = targets.find("jetson")
    assert (target.name, target.alias) == ("jetson-orin-nano", "jetson")
    assert (target.precision, target.runtime, target.unit, target.opset) == ("fp16", "tensorrt", "ms", 18)
    assert target.describe()["alias"] == "jetson"
    assert targets.find("jetson-orin-nano").alias is None


def test_every_name_of_the_list_is_found_and_describes_itself_in_json() -> None:
    rows = targets.all()
    assert [row.name for row in rows[:2]] == ["cpu", "cuda"]
    assert {row.name for row in rows[2:]} == set(spec_sheet())
    for row in rows:
        assert row.sources
        if row.available:
            target = targets.find(row.name)
            assert isinstance(target, Target)
            assert (target.name, target.title, target.runtime) == (row.name, row.title, row.runtime)
            json.dumps(target.describe())


@pytest.mark.parametrize(
    ("name", "near"), [("jetsn", "jetson"), ("raspbery-pi-4", "raspberry-pi-4"), ("gpu-h200", "h200")]
)
def test_a_wrong_name_offers_the_near_one(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"unknown target '{name}'; did you mean '{near}'"):
        targets.find(name)


def test_precision_and_batch_may_be_overridden() -> None:
    target = targets.find("jetson", precision="int8", batch=8)
    assert (target.precision, target.batch) == ("int8", 8)
    with pytest.raises(InputError, match="no fp64 figure"):
        targets.find("jetson", precision="fp64")
    with pytest.raises(InputError, match="'cpu' is not measured in int8"):
        targets.find("cpu", precision="int8")
    with pytest.raises(InputError, match="batch is 0"):
        targets.find("cpu", batch=0)
    with pytest.raises(InputError, match="threads = 4 is for target 'cpu'"):
        targets.find("jetson", threads=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused_when_it_is_asked_for() -> None:
    with pytest.raises(InputError, match="target 'cuda' needs an NVIDIA GPU that torch can see"):
        targets.find("cuda")
    row = targets.all()[1]
    assert not row.available
    assert "GPU" in row.truth


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can see")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_cuda_is_measured(precision: str) -> None:
    target = HostTarget("cuda", precision, batch=2, timing=QUICK)
    (found,) = target.measurements(space(), space().index([space().largest]))
    assert found.median_ms > 0
    assert (found.precision, found.batch) == (precision, 2)
    assert "NVIDIA" in found.device


def test_the_same_machine_is_the_same_target_within_a_process() -> None:
    assert targets.find("cpu") is targets.find("cpu")
    assert targets.find("cpu") is not targets.find("cpu", batch=2)


def test_each_arch_is_measured_once_and_keeps_its_statistics() -> None:
    target = HostTarget("cpu", threads=1, timing=QUICK)
    tiny = space()
    population = tiny.index([tiny.smallest, tiny.largest, tiny.smallest])
    before = torch.random.get_rng_state()
    first = target.latency(tiny, population)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.shape == (3,)
    assert first[0] == first[2]
    assert np.array_equal(target.latency(tiny, population), first)
    records = target.measurements(tiny, population)
    assert [m.median_ms for m in records] == first.tolist()
    assert all(m.threads == 1 and m.batch == 1 and m.repeats >= 5 for m in records)
    described = target.describe()
    assert described["measured_archs"] == 2
    assert described["layout"][tiny.digest] in ("contiguous_format", "channels_last")
    assert target.provenance.kind == "measured"
    assert "1 thread" in target.provenance.detail
    assert not target.cheap


def test_an_empty_population_has_no_latencies() -> None:
    tiny = space()
    for target in (HostTarget("cpu", timing=QUICK), targets.find("jetson")):
        assert target.latency(tiny, tiny.index([])).shape == (0,)


def test_anybodys_own_target(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_board.py").write_text(
        "from dataclasses import replace\n"
        "from predictors.devices import device\n"
        "from predictors.roofline import RooflineTarget\n"
        "board = replace(device('jetson-nano'), name='my-board', launch_us=1.0)\n"
        "fixed = RooflineTarget(board, 'fp32')\n"
        "def make(precision, batch):\n"
        "    return RooflineTarget(board, precision or 'fp16', batch)\n"
        "nothing = 3\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    assert targets.find("my_board:fixed").name == "my-board"
    made = targets.find("my_board:make", batch=2)
    assert (made.precision, made.batch) == ("fp16", 2)
    for name, message in {
        "my_board:absent": "has no 'absent'",
        "my_board:nothing": "is a int; it has to be a predictors.Target",
        "no_such_module:x": "cannot import 'no_such_module'",
        ":x": "not of the form module:attribute",
    }.items():
        with pytest.raises(InputError, match=message):
            targets.find(name)
    with pytest.raises(InputError, match="is fp32 at batch 1, not fp32 at batch 4"):
        targets.find("my_board:fixed", batch=4)


def test_timing_can_be_replaced() -> None:
    target = replace(HostTarget("cpu"), timing=QUICK)
    assert target.timing == QUICK


def test_a_network_that_reads_tokens_is_measured_on_its_whole_context() -> None:
    """And its arithmetic is that of its weights, though its input is whole numbers."""
    target = HostTarget("cpu", threads=1, timing=QUICK)
    tokens = gpt(classes=7, context=48, depths=(1, 2), embed_dims=(8,), head_dim=4)
    _, inputs = target._pair(tokens, tokens.largest)
    assert inputs.shape == (1, 48)
    assert inputs.dtype is torch.int64
    assert int(inputs.max()) < 7
    (found,) = target.measurements(tokens, tokens.index([tokens.largest]))
    assert (found.precision, found.batch) == ("fp32", 1)


def test_the_roofline_of_a_language_model_is_that_of_its_layers() -> None:
    target = targets.find("jetson")
    tokens = gpt(context=32)
    population = tokens.sample(5, np.random.default_rng(0))
    found = target.latency(tokens, population)
    want = [target.layers_latency(tokens.layers(arch)) for arch in tokens.archs(population)]
    assert found.tolist() == want
    longer = gpt(context=512)
    assert (target.latency(longer, population) > found).all()
