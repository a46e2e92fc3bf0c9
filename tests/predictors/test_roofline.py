"""Properties of the roofline that hold for every device and network."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from predictors.devices import spec_sheet
from predictors.fusion import kernels
from predictors.roofline import RooflineTarget, arithmetic, part_picoseconds
from predictors.target import PRECISION_BYTES, Target
from search_spaces.choice import Choice
from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from search_spaces.trace import Layer, trace

SHEET = spec_sheet()
ALL = [RooflineTarget(d, p) for d in SHEET.values() for p in d.precisions]
devices = st.sampled_from(list(SHEET.values()))
factors = st.floats(1.0, 50.0)


def block(width: int, kernel: int, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


@cache
def space() -> SearchSpace:
    """Two to four blocks of chosen kernel at a chosen width and resolution."""
    choices = [
        Choice("resolution", (16, 24)),
        Choice("width", (8, 16, 24)),
        Choice("depth", (2, 3, 4)),
        *(
            Choice(f"block{i}.kernel", (3, 5), when={"depth": tuple(d for d in (2, 3, 4) if d >= i)})
            for i in (1, 2, 3, 4)
        ),
    ]

    def build(arch):
        width = arch.integer("width")
        blocks = [block(width, arch.integer(f"block{i + 1}.kernel")) for i in range(arch.integer("depth"))]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
        return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), *blocks, *head)

    return SearchSpace("tiny", choices, build, input_shape=(3, 24, 24))


@cache
def layers() -> tuple[Layer, ...]:
    module = nn.Sequential(nn.Conv2d(3, 32, 3), block(32, 3), block(32, 5, groups=32), block(32, 3, groups=4))
    return trace(module.to("meta"), torch.zeros(1, 3, 32, 32, device="meta"))


@pytest.mark.parametrize("target", ALL, ids=lambda t: f"{t.name}-{t.precision}")
def test_never_faster_than_arithmetic_or_memory_allows(target: RooflineTarget) -> None:
    network = space().layers(space().largest)
    scale = PRECISION_BYTES[target.precision] / 4
    moved = sum(k.activation_bytes + k.weight_bytes for k in kernels(network)) * scale
    by_memory = moved / (target.device.bandwidth_gbs * 1e9)
    by_compute = 2 * sum(layer.macs for layer in network) / target.device.peak(target.precision)
    assert target.layers_latency(network) >= 1e3 * max(by_memory, by_compute)
    assert target.layers_latency(network) >= 1e-3 * target.device.launch_us * len(kernels(network))


@pytest.mark.parametrize("target", [ALL[0], RooflineTarget(SHEET["jetson-orin-nano"], "fp16", batch=4)])
def test_table_equals_direct_computation_to_the_last_bit(target: RooflineTarget) -> None:
    population = space().sample(200, np.random.default_rng(0))
    direct = [target.layers_latency(space().layers(arch)) for arch in space().archs(population)]
    assert np.array_equal(target.latency(space(), population), direct)


def test_parts_and_breakdown_tell_the_same_story() -> None:
    target = RooflineTarget(SHEET["jetson-orin-nano"], "fp16")
    rows = target.breakdown(layers())
    assert [row.name for row in rows] == [kernel.lead.name for kernel in kernels(layers())]
    assert sum(row.total_us for row in rows) / 1e3 == pytest.approx(target.layers_latency(layers()), rel=1e-6)
    for row in rows:
        assert row.bound in ("compute", "memory", "launch")


@given(device=devices, factor=factors, field=st.sampled_from(["bandwidth_gbs", "peak_fp32_tflops"]))
def test_a_better_device_is_never_slower(device, factor, field) -> None:
    better = replace(device, **{field: getattr(device, field) * factor})
    worse_parts = part_picoseconds(layers(), device, "fp32", 1)
    for name, took in part_picoseconds(layers(), better, "fp32", 1).items():
        assert took <= worse_parts[name]


@given(device=devices, factor=factors)
def test_more_launch_overhead_is_never_faster(device, factor) -> None:
    slower = replace(device, launch_us=device.launch_us * factor)
    before = RooflineTarget(device, "fp32").layers_latency(layers())
    assert RooflineTarget(slower, "fp32").layers_latency(layers()) >= before


@given(device=devices, batch=st.integers(1, 64))
def test_a_batch_takes_longer_than_one_image_and_no_longer_than_one_by_one(device, batch) -> None:
    one = RooflineTarget(device, "fp32").layers_latency(layers())
    many = RooflineTarget(device, "fp32", batch).layers_latency(layers())
    assert one <= many <= one * batch * (1 + 1e-9)


def test_lower_precision_is_never_slower_on_any_device() -> None:
    for device in SHEET.values():
        took = [RooflineTarget(device, p).layers_latency(layers()) for p in device.precisions]
        assert took == sorted(took, reverse=True), device.name


def test_kinds_of_convolution_are_told_apart() -> None:
    assert [arithmetic(layer) for layer in layers() if layer.kind == "conv2d"] == [
        "dense",
        "dense",
        "depthwise",
        "grouped",
    ]


def test_weights_without_a_kernel_cost_bytes_but_no_launch() -> None:
    free = Layer("pos", "parameters", "", (), (), None, None, None, 1, 0, 1000, 0, 0, 4000, ())
    device = SHEET["jetson-orin-nano"]
    took = RooflineTarget(device, "fp32").breakdown([free])[0]
    assert took.launch_us == 0
    assert took.memory_us > 0


def test_it_says_that_it_is_an_estimate() -> None:
    target = RooflineTarget(SHEET["jetson-orin-nano"], "fp16")
    assert isinstance(target, Target)
    assert target.provenance.kind == "estimated"
    assert "uncalibrated" in target.provenance.detail
    assert "not calibrated" in target.caveat
    assert target.describe()["device"]["sources"] == target.device.sources


def test_a_precision_without_a_figure_and_an_empty_batch_are_refused() -> None:
    with pytest.raises(InputError, match="no fp16 figure"):
        RooflineTarget(SHEET["raspberry-pi-4"], "fp16")
    with pytest.raises(InputError, match="batch is 0"):
        RooflineTarget(SHEET["raspberry-pi-4"], "fp32", batch=0)
