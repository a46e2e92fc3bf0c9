"""How far the uncalibrated roofline lies from published measurements.

    python studies/benchmarks/roofline_vs_measured.py

Reads `latency/jetson_networks.csv`, `latency/edge_networks.csv.gz`, `latency/nb201_jetson.csv.gz` and
`latency/nb201_other_devices.csv.gz` below $NAS_SHARED_DATA (default: ../shared/data beside this
repository) and writes roofline_vs_measured.csv beside this file: one row per device, runtime and networks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
import torchvision
from record import save
from scipy.stats import kendalltau
from torch import Tensor, nn

from predictors import targets
from predictors.roofline import RooflineTarget
from search_spaces.trace import Layer, trace

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NAS_SHARED_DATA", ROOT.parent / "shared" / "data")) / "latency"
CELLS = 150  # NAS-Bench-201 networks per device, drawn with seed 0

TIMM = {
    "MobileNetV3-small": "mobilenetv3_small_100",
    "MobileNetV3-large": "mobilenetv3_large_100",
    "MixNet-s": "mixnet_s",
    "MixNet-m": "mixnet_m",
    "MixNet-l": "mixnet_l",
    "ResNet18": "resnet18",
    "ResNet50": "resnet50",
    "EfficientFormer-l1": "efficientformer_l1",
    "MobileViT-s": "mobilevit_s",
    "ViT-tiny": "vit_tiny_patch16_224",
    "EfficientViT-B1": "efficientvit_b1",
    "EfficientViT-B2": "efficientvit_b2",
    "EfficientViT-B3": "efficientvit_b3",
}
TORCHVISION = {
    *("alexnet", "densenet121", "densenet161", "densenet169", "densenet201", "resnet18", "resnet50"),
    *("resnet152", "squeezenet1_0", "squeezenet1_1", "vgg11", "vgg13", "vgg16", "vgg16_bn", "mnasnet0_5"),
    *("mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
    "shufflenet_v2_x1_5",
}
BOARDS = {
    "NVIDIA Jetson Nano": "jetson-nano",
    "NVIDIA Jetson TX2": "jetson-tx2",
    "NVIDIA Jetson Xavier NX": "jetson-xavier-nx",
    "NVIDIA Jetson AGX Xavier": "jetson-agx-xavier",
    "NVIDIA Jetson Orin Nano": "jetson-orin-nano",  # 4 or 8 GB is not stated
    "NVIDIA Jetson AGX Orin": "jetson-agx-orin-64gb",  # 32 or 64 GB is not stated
    "Raspberry Pi 4B": "raspberry-pi-4",
    "Raspberry Pi 5": "raspberry-pi-5",
}


class Cell(nn.Module):
    """A NAS-Bench-201 cell: node 3 of a graph whose six edges are operations, node i the sum of its edges.

    Edges that cannot reach node 3, or that carry nothing, are not run.
    """

    def __init__(self, network: str, channels: int) -> None:
        super().__init__()
        nodes = [node.strip("|").split("|") for node in network.split("+|")]
        self.edges = {
            (int(edge[-1]), i + 1): edge[:-2]
            for i, node in enumerate(nodes)
            for edge in node
            if not edge.startswith("none")
        }
        fed, read = {0}, {3}
        for end in (1, 2, 3):
            if any(b == end and a in fed for a, b in self.edges):
                fed.add(end)
        for start in (2, 1, 0):
            if any(a == start and b in read for a, b in self.edges):
                read.add(start)
        self.edges = {(a, b): op for (a, b), op in self.edges.items() if a in fed and b in read}
        self.ops = nn.ModuleDict({f"{a}{b}": _edge(op, channels) for (a, b), op in self.edges.items()})

    def forward(self, x: Tensor) -> Tensor:
        values = {0: x}
        for a, b in self.edges:
            y = self.ops[f"{a}{b}"](values[a])
            values[b] = values[b] + y if b in values else y
        return values[3] if 3 in values else torch.zeros_like(x)


class Down(nn.Module):
    """Halves the size, doubles the channels: the residual block between two stages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, 2 * channels, 3, 2), _conv(2 * channels, 2 * channels, 3))
        self.short = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.short(x) + self.body(x)


def _conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(out))


def _edge(op: str, channels: int) -> nn.Module:
    if op.startswith("nor_conv"):
        return _conv(channels, channels, int(op[-1]))
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False) if op == "avg_pool_3x3" else nn.Identity()


def nasbench201(network: str) -> nn.Module:
    """The CIFAR-10 network of a cell: 16, 32 and 64 channels, five cells each."""
    widths = (16, 32, 64)
    stages: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    for width, after in pairwise((*widths, 0)):
        stages += [Cell(network, width) for _ in range(5)] + ([Down(width)] if after else [])
    head = [nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stages, *head)


def layers_of(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """The layers of a network at batch 1."""
    with torch.device("meta"):
        return trace(build(), torch.zeros(1, *shape))


@cache
def named(network: str, shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """The layers of a network by the name that the tables use."""
    if network in TIMM:
        size = {"img_size": shape[-1]} if network.startswith("ViT") else {}
        return layers_of(lambda: timm.create_model(TIMM[network], **size), shape)
    return layers_of(lambda: torchvision.models.get_model(network), shape)


def named_networks() -> pd.DataFrame:
    """Measured rows of networks that we can build: device, runtime, network, measured and estimated ms."""
    known = {*TIMM, *TORCHVISION}
    table = pd.concat([pd.read_csv(DATA / "jetson_networks.csv"), pd.read_csv(DATA / "edge_networks.csv.gz")])
    rows = table[
        table.device.isin(list(BOARDS))
        & table.network.isin(known)
        & table.input.str.fullmatch(r"3x\d+x\d+")
        & (table.batch == 1)
        & table.precision.isin(["fp16", "fp32"])
        & (table.runtime.str.startswith("TensorRT") | table.runtime.eq("TFLite"))
        & table.latency_ms.notna()
    ]
    found = []
    for row in rows.itertuples():
        # TFLite's "fp16" rows for ARM store weights in fp16 and compute in fp32 (XNNPACK's default).
        precision = "fp32" if row.runtime == "TFLite" else row.precision
        target = targets.find(BOARDS[row.device], precision)
        assert isinstance(target, RooflineTarget)
        shape = tuple(int(n) for n in row.input.split("x"))
        estimate = target.layers_latency(named(row.network, shape))
        found.append(
            (target.name, row.runtime, row.precision, "named", row.network, row.latency_ms, estimate)
        )
    return pd.DataFrame(found, columns=COLUMNS)


def cells() -> pd.DataFrame:
    """The same for NAS-Bench-201."""
    jetson = pd.read_csv(DATA / "nb201_jetson.csv.gz")
    other = pd.read_csv(DATA / "nb201_other_devices.csv.gz")
    drawn = jetson.network.drop_duplicates().sample(CELLS, random_state=0)
    layers = {network: layers_of(lambda n=network: nasbench201(n), (3, 32, 32)) for network in drawn}
    found = []
    sets = [(BOARDS[d], r, p, rows) for (d, r, p), rows in jetson.groupby(["device", "runtime", "precision"])]
    pi = other.rename(columns={"ms_raspi4_hwnas": "latency_ms"})
    sets.append(("raspberry-pi-4", "TFLite (HW-NAS-Bench)", "fp32", pi))
    for device, runtime, precision, rows in sets:
        target = targets.find(device, precision)
        assert isinstance(target, RooflineTarget)
        for row in rows[rows.network.isin(list(layers))].itertuples():
            estimate = target.layers_latency(layers[row.network])
            found.append((device, runtime, precision, "NAS-Bench-201", row.network, row.latency_ms, estimate))
    return pd.DataFrame(found, columns=COLUMNS)


COLUMNS = ["device", "runtime", "precision", "networks", "network", "measured_ms", "estimated_ms"]


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation and errors for each device, runtime and set of networks with at least five rows."""
    found = []
    for keys, group in rows.groupby(COLUMNS[:4]):
        if len(group) >= 5:
            ratio = group.estimated_ms / group.measured_ms
            tau = kendalltau(group.estimated_ms, group.measured_ms).statistic
            mape = float(np.abs(ratio - 1).mean() * 100)
            within = float(((ratio > 0.5) & (ratio < 2)).mean() * 100)
            found.append((*keys, len(group), tau, mape, float(ratio.median()), within))
    names = [*COLUMNS[:4], "n", "kendall_tau", "mape_percent", "median_ratio", "within_factor_2_percent"]
    return pd.DataFrame(found, columns=names).round(3)


def main() -> None:
    if not (DATA / "jetson_networks.csv").exists():
        print(f"skipped: no measurements at {DATA} (set NAS_SHARED_DATA to the folder that holds latency/)")
        return
    rows = pd.concat([named_networks(), cells()])
    save(__file__, compare(rows).to_dict("records"), ("timm", "torchvision"))


if __name__ == "__main__":
    main()
