"""A tiny real space, its supernet and a few learnable images, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import randomise
from torch import Tensor, nn

from nas.resolve import names, resolve
from search_spaces.choice import Choice
from search_spaces.errors import SpaceError
from search_spaces.space import SearchSpace
from supernets.plan import SamplingPolicy
from supernets.policies.sandwich import Sandwich
from supernets.recipe import Phase, Recipe
from supernets.schemes.layered import LayeredScheme
from supernets.supernet import Supernet

CLASSES = 4


class TinyBlock(nn.Module):
    """An inverted residual of 8 channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(8, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.project = nn.Conv2d(width, 8, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.expand(x)).relu()
        return x + self.project(self.bn2(self.depthwise(y)).relu())


class TinyNet(nn.Module):
    """What a person would have written for one depth and its widths."""

    def __init__(self, widths: list[int], dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList(TinyBlock(width) for width in widths)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(x.mean((2, 3))))


class TinyImages:
    """Batches of noise around one mean image per class; a function of (epoch, batch number) only."""

    def __init__(self, steps: int = 4, batch: int = 16, size: int = 12) -> None:
        self.steps = steps
        self.batch = batch
        self.size = size
        self.served: list[tuple[int, int]] = []

    def one(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        means = torch.from_numpy(np.random.default_rng(7).normal(size=(CLASSES, 3, 1, 1)))
        rng = np.random.default_rng((11, epoch, number))
        y = torch.from_numpy(rng.integers(0, CLASSES, self.batch))
        noise = torch.from_numpy(rng.normal(size=(self.batch, 3, self.size, self.size)))
        return (means[y] + 0.5 * noise).float(), y

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(start, self.steps):
            self.served.append((epoch, number))
            yield self.one(epoch, number)


def tiny_space(dropout: float = 0.2) -> SearchSpace:
    choices = [
        Choice("resolution", (8, 12)),
        Choice("depth", (1, 2)),
        Choice("width0", (8, 16)),
        Choice("width1", (8, 12, 16), when={"depth": (2,)}),
    ]
    return SearchSpace(
        "tiny",
        choices,
        lambda arch: TinyNet([arch[f"width{i}"] for i in range(arch["depth"])], dropout),
        input_shape=(3, 12, 12),
        settings={"dropout": dropout},
    )


def tiny_recipe(epochs: int = 2, policy: SamplingPolicy | None = None, **settings: object) -> Recipe:
    settings = {"lr": 0.02, "clip_norm": 5.0, "label_smoothing": 0.1, **settings}
    phase = Phase(name="only", epochs=epochs, policy=policy or Sandwich(4), **settings)
    return Recipe("tiny", (phase,))


def folder_weights(folder: Path) -> dict[str, Tensor]:
    from supernets.checkpoint import load_tensors

    return load_tensors(folder / "supernet.safetensors")[0]


@pytest.fixture
def space() -> SearchSpace:
    return tiny_space()


@pytest.fixture
def supernet(space: SearchSpace) -> Supernet:
    return Supernet(space, seed=3)


@pytest.fixture
def images() -> TinyImages:
    return TinyImages()


@pytest.fixture
def make_images() -> type[TinyImages]:
    return TinyImages


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    return tiny_recipe


@pytest.fixture
def make_space() -> Callable[..., SearchSpace]:
    return tiny_space


@pytest.fixture
def weights_in() -> Callable[[Path], dict[str, Tensor]]:
    return folder_weights


LAYERED = ("stage_shared", "linear_expansion")
CONVOLUTIONAL = ("mobilenet_v3", "proxyless", "resnet50d")
"""Spaces whose layers differ in their shapes, so that no scheme can make them from common ones."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pairs of a space and a scheme that do not go together are no tests."""
    items[:] = [item for item in items if not _apart(item)]


def _apart(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    if params.get("any_supernet") not in LAYERED:
        return False
    return params.get("any_space") in CONVOLUTIONAL or "plainly_stored" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", params=names("scheme"))
def any_supernet(any_space: SearchSpace, request: pytest.FixtureRequest) -> Supernet:
    """Every space under every scheme that serves it, in eval mode. Shared: nobody changes it."""
    try:
        return randomise(Supernet(any_space, resolve("scheme", request.param)())).eval()
    except SpaceError as error:
        pytest.skip(str(error))


@pytest.fixture
def plainly_stored(any_supernet: Supernet) -> Supernet:
    """Of those, the ones that store the tensors of the largest plain network."""
    if isinstance(any_supernet.scheme, LayeredScheme):
        pytest.skip("the scheme stores other layers than those of the plain network")
    return any_supernet
