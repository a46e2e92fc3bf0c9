"""The state of a training on disk: saved so that going on gives the weights of a training never interrupted.

All that is random derives from (seed, step), and the learning rate from the step, so the weights, the
optimiser's state, the average, the policy's memory and the position are everything there is to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from search_spaces.errors import InputError
from supernets.checkpoint import CheckpointError, load_tensors, previous, save_checkpoint, settle
from supernets.optimiser import load_optimizer_state, optimizer_state
from supernets.progress import EpochSums
from supernets.step import Learner
from supernets.supernet import Supernet

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "supernet.safetensors"


@dataclass
class Position:
    """Where a training stands: the next epoch and step in it, and what it has counted."""

    epoch: int = 0  # over all phases
    step: int = 0  # optimiser steps done in this epoch
    global_step: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    sums: EpochSums = field(default_factory=EpochSums)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read: tensors by part, and its record."""

    position: Position
    tensors: Mapping[str, dict[str, Tensor]]  # "weights", "ema", "optimizer"
    meta: Mapping[str, Any]

    def restore_weights(self, supernet: Supernet) -> None:
        """Puts the saved weights into `supernet`."""
        supernet.load_shared_state(self.tensors["weights"])

    def restore_learner(self, learner: Learner) -> None:
        """Puts the saved optimiser, average, scaler and policy into a learner made for the same phase."""
        load_optimizer_state(
            learner.supernet, learner.optimizer, self.tensors["optimizer"], self.meta["optimizer"]
        )
        if learner.ema is not None:
            learner.ema.load(self.tensors["ema"])
        if learner.scaler is not None and self.meta["scaler"]:
            learner.scaler.load_state_dict(self.meta["scaler"])
        learner.policy.load_state_dict(self.meta["policy"])


def save_training(folder: Path, learner: Learner, position: Position, settings: Mapping[str, Any]) -> None:
    """Writes the checkpoint of `folder`; the one before it is kept."""
    tensors = {f"weights/{name}": t for name, t in learner.supernet.shared_state().items()}
    moments, values = optimizer_state(learner.supernet, learner.optimizer)
    tensors |= {f"optimizer/{name}": t for name, t in moments.items()}
    if learner.ema is not None:
        tensors |= {f"ema/{name}": t for name, t in learner.ema.state.items()}
    meta = {
        "settings": dict(settings),
        "position": {**position.__dict__, "sums": position.sums.as_dict()},
        "optimizer": values,
        "scaler": learner.scaler.state_dict() if learner.scaler else {},
        "policy": learner.policy.state_dict(),
    }
    save_checkpoint(folder / CHECKPOINT, tensors, meta)


def load_training(folder: Path, settings: Mapping[str, Any]) -> Saved | None:
    """The checkpoint of `folder`, or the one before it when that alone is there; None when there is none.

    Raises:
        CheckpointError: it is damaged; names the one before it.
        InputError: it was made with other settings; names the first that differs.
    """
    path = folder / CHECKPOINT
    with suppress(CheckpointError):
        settle(path)
    if not path.exists():
        path = previous(path)
        if not path.exists():
            return None
    tensors, meta = load_tensors(path)
    if (difference := _difference(meta.get("settings"), dict(settings))) is not None:
        where, then, now = difference
        raise InputError(
            f"{folder} was trained with {where} = {then!r}, now it is {now!r}; "
            "resume with the same settings or choose another folder"
        )
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}, "ema": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    where_it_stood = dict(meta["position"])
    sums = EpochSums(**where_it_stood.pop("sums"))
    return Saved(Position(**where_it_stood, sums=sums), parts, meta)


def _difference(then: Any, now: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """The first place at which two JSON values differ: its path, and both values there."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            found = _difference(then.get(key), now.get(key), f"{where}.{key}" if where else key)
            if found is not None:
                return found
        return None
    if isinstance(then, list) and isinstance(now, (list, tuple)) and len(then) == len(now):
        for i, (a, b) in enumerate(zip(then, now, strict=True)):
            found = _difference(a, b, f"{where}[{i}]")
            if found is not None:
                return found
        return None
    return None if then == now else (where, then, now)
