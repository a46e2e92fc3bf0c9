"""Timing on this machine: statistics, bookkeeping, and nothing left changed. No clock decides a test."""

from __future__ import annotations

import gc
import json

import pytest
import torch
from torch import nn

from predictors.measure import Measurement, Timing, measure_module, measure_modules, summarise
from search_spaces.errors import InputError

QUICK = Timing(warmup_s=0.0, min_s=0.0, repeats=10, max_s=0.5)


def test_measurement_carries_statistics_and_machine() -> None:
    found = measure_module(nn.Linear(8, 8), torch.zeros(4, 8), warmup_s=0, min_s=0, repeats=20, threads=1)
    assert 0 < found.p5_ms <= found.median_ms <= found.p95_ms
    assert found.repeats >= 20
    assert (found.batch, found.threads, found.precision) == (4, 1, "fp32")
    assert found.device
    assert "pytorch" in found.runtime
    assert found.cores


def test_measurement_round_trips_through_json() -> None:
    found = measure_module(nn.ReLU(), torch.zeros(1, 8), warmup_s=0, min_s=0, repeats=5)
    assert Measurement.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_summary_is_the_median_with_percentiles_and_drift() -> None:
    found = summarise([1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    assert found.median_ms == 1.5
    assert found.drift == pytest.approx(1.0)
    assert not found.steady
    assert summarise([3.0] * 6).steady
    assert summarise([1.0, 1.0, 1.0, 1.0, 1.0, 900.0]).median_ms == 1.0


def test_threads_gradients_and_collection_are_as_before() -> None:
    threads = torch.get_num_threads()
    measure_modules([(nn.ReLU(), torch.zeros(8))], timing=QUICK, threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert gc.isenabled()
    assert torch.is_grad_enabled()


def test_threads_are_restored_when_the_module_fails() -> None:
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        measure_modules([(nn.Linear(8, 8), torch.zeros(1, 3))], timing=QUICK, threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert gc.isenabled()


def test_modules_take_turns() -> None:
    calls: list[str] = []

    class Tell(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x):
            calls.append(self.name)
            return x

    timing = Timing(warmup_s=0.0, min_s=0.0, repeats=10, max_s=10)
    found = measure_modules([(Tell("a"), torch.zeros(1)), (Tell("b"), torch.zeros(1))], timing=timing)
    assert [m.repeats for m in found] == [10, 10]
    turns = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert turns[:12] == ["a", "b"] * 6  # the warm-up, then five visits each


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"repeats": 0}, {"warmup_s": -1}, {"threads": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        measure_module(nn.ReLU(), torch.zeros(1), **wrong)
