"""What a training needs, made from its settings and checked before anything is written."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass, replace
from typing import Any

import torch

from nas.config import options
from nas.data import Data
from nas.data.batches import TrainBatches
from nas.resolve import call, names, resolve
from nas.spaces import make_space
from nas.teacher import ExternalTeacher, open_teacher
from nas.train_settings import TrainSettings
from nas.trained import make_scheme, make_supernet, open_data
from search_spaces import InputError, SearchSpace
from supernets import Supernet
from supernets.distributed import local_device
from supernets.phases import check_recipe
from supernets.recipe import Recipe

DECIDING = {option.name for option in options(TrainSettings) if not option.setting.portable} - {"name"}
"""The settings that decide what a training gives."""


@dataclass(frozen=True)
class Job:
    """What a training needs, made from its settings and checked before anything is written."""

    settings: TrainSettings
    data: Data
    space: SearchSpace
    recipe: Recipe
    device: str
    teacher: ExternalTeacher | None = None

    @property
    def digest(self) -> str:
        """Names what decides the weights: equal digests train equal supernets."""
        settings = {k: v for k, v in self.settings.as_dict().items() if k in DECIDING}
        described = [settings, self.space.digest, self.recipe.describe(), self.data.fingerprint]
        if self.teacher is not None:
            described.append(self.teacher.record)
        return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:8]

    def supernet(self) -> Supernet:
        """A fresh supernet."""
        return make_supernet(self.space, self.settings)

    def batches(self) -> Any:
        """The training batches, changed on the GPU where there is one and the pixels are in memory."""
        batches = self.data.train_batches(self.settings.batch_size, self.settings.seed)
        if self.device == "cpu" or not isinstance(batches, TrainBatches) or not batches.store.in_memory:
            return batches
        return replace(batches, device=torch.device(self.device))


def prepare(settings: TrainSettings) -> Job:
    """Data, space and recipe of the settings.

    Raises:
        InputError: a name or a value that does not fit, before anything is written.
        FileNotFoundError: the data is not there.
    """
    data = open_data(settings)
    space = make_space(settings.space, settings.space_settings, data)
    given = dict(settings.recipe_settings)
    for name in ("epochs", "lr"):
        if (value := getattr(settings, name)) is not None:
            given[name] = value
    factory = resolve("recipe", settings.recipe)
    if settings.teacher is not None and "teacher" in inspect.signature(factory).parameters:
        given.setdefault("teacher", "given")
    recipe = call("recipe", settings.recipe, factory, given)
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe {settings.recipe!r} made a {type(recipe).__name__}, not a Recipe")
    settings = replace(settings, scheme=settings.scheme or recipe.scheme)  # so that run.json records it
    make_scheme(settings)
    check_recipe(recipe, space)
    teacher = _teacher(settings, recipe, data)
    return Job(settings, data, space, recipe.fitted(space), pick_device(settings.device), teacher)


def _teacher(settings: TrainSettings, recipe: Recipe, data: Data) -> ExternalTeacher | None:
    """The teacher of the settings, where the recipe asks for one; a slip is said before anything is read."""
    asks = any(phase.teacher == "given" for phase in recipe.phases)
    if settings.teacher is None:
        if asks:
            raise InputError(
                f"recipe {settings.recipe!r} needs a teacher: --teacher RUN, timm:NAME or timm:NAME@FILE"
            )
        return None
    if not asks:
        able = [n for n in names("recipe") if "teacher" in inspect.signature(resolve("recipe", n)).parameters]
        raise InputError(f"recipe {settings.recipe!r} learns from no --teacher; {', '.join(able)} can")
    return open_teacher(settings.teacher, data, settings.teacher_size)


def pick_device(name: str) -> str:
    """`auto` as the device it stands for; others checked. Of several ranks each has a GPU of its own."""
    if name == "auto":
        return local_device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} needs an NVIDIA GPU that torch can see; use --device cpu")
    return local_device(name)
