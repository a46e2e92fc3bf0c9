"""What all tests share: one thread per process, few examples of each property, real data where it is."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch or NumPy load: several test processes share few cores.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# What a developer has set for the command line must not reach its tests.
for _variable in [
    name for name in os.environ if name.startswith("NAS_") and not name.startswith("NAS_TEST_")
]:
    del os.environ[_variable]

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from nas.resolve import names, resolve  # noqa: E402

if TYPE_CHECKING:
    from search_spaces import SearchSpace

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile(
    "ci",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def small_space(name: str, **keywords: object) -> SearchSpace:
    """The space of that name for images of 16 pixels, or for 12 tokens; 10 classes."""
    make = resolve("space", name)
    sizes = {"image_size": 16, "channels": 1, "context": 12, "classes": 10}
    return make(**{k: v for k, v in sizes.items() if k in inspect.signature(make).parameters}, **keywords)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session", params=[*names("space"), "vit with relative positions"])
def any_space(request: pytest.FixtureRequest) -> SearchSpace:
    """Every space that there is a file for, in turn, for small inputs. Shared: nobody changes it."""
    if request.param == "vit with relative positions":
        return small_space("vit", relative_positions=True)
    return small_space(request.param)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: the variable NAS_TEST_DATA, else `shared/data` beside or in the checkout."""
    named = os.environ.get("NAS_TEST_DATA")
    places = [Path(named)] if named else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip("no real data here: set NAS_TEST_DATA to a folder with cifar10, fashion-mnist, latency, ...")
