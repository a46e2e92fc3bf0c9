"""How a training goes: what is reported after each step, and the line that each epoch leaves in the log."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supernets.files import atomic_write


@dataclass(frozen=True, slots=True)
class Progress:
    """One optimiser step. epoch counts from 1, step is how many are done, both over all phases. What is
    counted as images are labels: of text, tokens.

    loss and accuracy are those of the plan's first member (in a sandwich, the largest) on the batch; both NaN
    when the step was skipped, which `skipped` counts since the start of the training.
    """

    phase: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_s: float
    eta_s: float
    lr: float
    skipped: int


@dataclass
class EpochSums:
    """What an epoch has added up so far; it travels with the checkpoint, so a resumed epoch logs the same."""

    steps: int = 0
    images: int = 0
    correct: int = 0
    first_loss: float = 0.0
    other_loss: float = 0.0
    others: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add(self, losses: list[float], images: int, correct: int) -> None:
        """One step that was taken."""
        self.steps += 1
        self.images += images
        self.correct += correct
        self.first_loss += losses[0]
        self.other_loss += sum(losses[1:])
        self.others += len(losses) - 1

    def line(self, epoch: int, phase: str, lr: float, unit: str = "images") -> dict[str, Any]:
        """The epoch as one JSON-able record; means over its steps, None where there were none.

        `unit` is what a label belongs to.
        """
        return {
            "epoch": epoch,
            "phase": phase,
            "loss": self.first_loss / self.steps if self.steps else None,
            "other_loss": self.other_loss / self.others if self.others else None,
            "accuracy": self.correct / self.images if self.images else None,
            "lr": lr,
            "steps": self.steps,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
            f"{unit}_per_s": round(self.images / self.seconds, 1) if self.seconds else None,
        }

    def as_dict(self) -> dict[str, Any]:
        """The sums as JSON-able data; `EpochSums(**data)` restores them."""
        return asdict(self)


@dataclass
class Clock:
    """Speed of the last steps, for the estimate of what remains. Never decides anything."""

    last: float = field(default_factory=time.monotonic)
    per_step: float = 0.0
    per_image: float = 0.0

    def tick(self, images: int) -> float:
        """Notes that a step of so many images has ended; returns its seconds."""
        now = time.monotonic()
        seconds, self.last = now - self.last, now
        share = 0.1 if self.per_step else 1.0
        self.per_step += share * (seconds - self.per_step)
        self.per_image += share * (seconds / max(images, 1) - self.per_image)
        return seconds


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Adds one JSON line to a log and sees it to the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log, one per epoch; a line that a kill has torn is left out.

    Raises:
        OSError: the log is not there or cannot be read.
    """
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            record["epoch"] += 0
        except (ValueError, KeyError, TypeError):
            continue
        found.append(record)
    return found


def truncate_log(path: Path, epochs: int) -> None:
    """Keeps the lines of the first `epochs` epochs: later ones, and torn ones, will be written again."""
    if path.exists():
        kept = [json.dumps(record) + "\n" for record in read_log(path) if record["epoch"] <= epochs]
        atomic_write(path, "".join(kept).encode())
