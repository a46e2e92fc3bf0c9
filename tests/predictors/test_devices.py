"""The spec sheet is complete, consistent, and says where every figure is from."""

from __future__ import annotations

import re

import pytest

from predictors.devices import Device, aliases, device, spec_sheet
from search_spaces.errors import InputError

DEVICES = list(spec_sheet().values())
EXPORTED_OPSETS = (17, 18, 20)


@pytest.mark.parametrize("row", DEVICES, ids=lambda d: d.name)
def test_row_is_consistent(row: Device) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row.name)
    assert row.sources
    assert "unverified" in row.sources  # the launch overhead of every row at least is a round figure
    assert row.peak_fp32_tflops > 0
    assert all(p is None or p > 0 for p in (row.peak_fp16_tflops, row.peak_int8_tops))
    assert min(row.bandwidth_gbs, row.memory_gb, row.launch_us) > 0
    assert row.peak_fp16_tflops is None or row.peak_fp16_tflops >= row.peak_fp32_tflops
    assert row.peak_int8_tops is None or row.peak_int8_tops >= (row.peak_fp16_tflops or 0)
    assert not row.tensor_cores or row.peak_fp16_tflops
    assert row.precision in row.precisions
    assert row.opset in EXPORTED_OPSETS
    assert row.opset_note
    assert row.runtime in ("tensorrt", "onnxruntime")


def test_names_and_aliases_do_not_collide() -> None:
    every = [row.name for row in DEVICES] + [alias for row in DEVICES for alias in row.aliases]
    assert len(every) == len(set(every))
    assert all(target in spec_sheet() for target in aliases().values())


def test_the_boards_people_ask_for_are_there() -> None:
    boards = (
        "jetson-nano jetson-tx2 jetson-xavier-nx jetson-agx-xavier jetson-orin-nano jetson-orin-nano-4gb "
        "jetson-orin-nano-super jetson-orin-nx-8gb jetson-orin-nx-16gb jetson-agx-orin-32gb "
        "jetson-agx-orin-64gb jetson-agx-thor raspberry-pi-4 raspberry-pi-5"
    )
    assert set(boards.split()) <= set(spec_sheet())
    assert device("jetson").name == "jetson-orin-nano"


def test_unknown_device_offers_the_near_name() -> None:
    with pytest.raises(InputError, match="did you mean 'jetson-agx-thor'"):
        device("jetson-agx-thar")


def test_a_precision_without_a_figure_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(InputError, match=r"'jetson-nano' has no int8 figure .*\(precisions: fp32, fp16\)"):
        device("jetson-nano").peak("int8")
