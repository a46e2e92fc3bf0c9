"""Networks of a space trained alone, from scratch: the truth that a supernet's scores are held against."""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from nas.data import Data
from nas.objectives import Objective
from nas.quality import quality
from search_spaces import Arch, SearchSpace
from supernets import Supernet
from supernets.files import clean_temporaries, write_json
from supernets.policies.uniform import Uniform
from supernets.precision import Precision, autocast_dtype
from supernets.recipe import Phase, Recipe
from supernets.trainer import Progress, train


def alone_recipe(recipe: Recipe, epochs: int | None = None) -> Recipe:
    """What one network gets alone: the epochs of all phases, by the settings of the first, with labels only.

    The first, because it is the one that trains from scratch. As many optimiser steps, each on as many
    images, as the supernet had.
    """
    first, total = recipe.phases[0], epochs or recipe.epochs
    phase = Phase(
        name="alone",
        epochs=total,
        policy=Uniform(1),
        optimizer=first.optimizer,
        lr=first.lr,
        weight_decay=first.weight_decay,
        momentum=first.momentum,
        warmup_epochs=min(first.warmup_epochs, total / 10),
        label_smoothing=first.label_smoothing,
        mixup=first.mixup,
        ema_decay=first.ema_decay,
        clip_norm=first.clip_norm,
        accumulate=first.accumulate,
    )
    return Recipe("alone", (phase,))


def only(space: SearchSpace, arch: Arch) -> SearchSpace:
    """The space in which `arch` is the one arch that there is."""
    return space.restrict({glob.escape(name): (option,) for name, option in arch.items()})


@dataclass(frozen=True)
class StandAlone:
    """Trains networks alone and remembers their scores in `folder`, one small file each.

    A network that was scored is never trained again; a training that was stopped or killed goes on from its
    checkpoint. The folder may serve many supernets of one space: files are named by what decides a score.
    """

    space: SearchSpace
    data: Data
    recipe: Recipe  # as `alone_recipe` makes it
    folder: Path
    batch_size: int = 64
    seed: int = 0
    device: str = "cpu"
    precision: str = "auto"

    def key(self, arch: Arch) -> str:
        """Names everything that decides the score of `arch`."""
        decides = [
            arch.to_json(),
            self.space.name,
            self.space.settings,
            self.data.fingerprint,
            self.recipe.describe(),
            self.batch_size,
            self.seed,
            str(autocast_dtype(cast(Precision, self.precision), torch.device(self.device))),
        ]
        text = json.dumps(decides, sort_keys=True, default=str)
        return f"{arch.digest}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def steps(self) -> int:
        """Optimiser steps of one training."""
        return self.recipe.steps(self._batches().steps)

    def known(self, arch: Arch) -> float | None:
        """The recorded score of `arch`, None if it was not trained to its end."""
        path = self._record(arch)
        try:
            return float(json.loads(path.read_text())["score"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # never written, or by another hand: it is computed again

    def score(self, arch: Arch, report: Callable[[Progress], None] | None = None) -> float:
        """The score of `arch` on the validation split after its training alone, in the unit of `quality`.

        Raises:
            Interrupted: a signal came; the same call goes on where it stopped.
            TrainingDiverged: its loss did not stay finite.
        """
        recorded = self.known(arch)
        if recorded is not None:
            return recorded
        self.folder.mkdir(parents=True, exist_ok=True)
        clean_temporaries(self.folder)
        space = only(self.space, arch)
        supernet, work = Supernet(space, seed=self.seed), self.folder / self.key(arch)
        train(
            supernet,
            self.recipe,
            self._batches(),
            folder=work,
            seed=self.seed,
            device=self.device,
            precision=cast(Precision, self.precision),
            report=report,
        )
        objective = self.objective(supernet)
        value = float(objective.evaluate(space.index([space.largest]))[0])
        write_json(
            self._record(arch),
            {"arch": dict(arch), "score": value, "what": objective.name, "recipe": self.recipe.describe()},
        )
        shutil.rmtree(work, ignore_errors=True)  # the checkpoints of a network that is done
        return value

    def objective(self, supernet: Supernet) -> Objective:
        """The score of networks of `supernet` on this data."""
        return quality(supernet.to(self.device).eval(), self.data, self.device)

    def _record(self, arch: Arch) -> Path:
        return self.folder / f"{self.key(arch)}.json"

    def _batches(self) -> Any:
        return self.data.train_batches(self.batch_size, self.seed)
