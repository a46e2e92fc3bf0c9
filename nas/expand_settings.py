"""The settings of `nas expand`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Any

from nas.config import Settings, setting
from nas.setting_groups import DATA, MODEL, RUN, TRAINING
from search_spaces.errors import InputError

DEEPEST = 1000


def depths(value: Any) -> tuple[int, ...]:
    """Depths from a number, from text such as 4,6,8, or from a list of either.

    Raises:
        InputError: anything else, a depth twice, or one that no network has.
    """
    parts = value if isinstance(value, list | tuple) else [value]
    words = [word.strip() for part in parts for word in str(part).split(",")]
    if not words or not all(word.isdecimal() for word in words):
        raise InputError("expected a number of layers, or several such as 4,6,8")
    found = tuple(map(int, words))
    if not all(1 <= depth <= DEEPEST for depth in found):
        raise InputError(f"a network has from 1 to {DEEPEST} layers")
    if len(set(found)) != len(found):
        raise InputError("names a depth twice")
    return found


@dataclass(frozen=True)
class ExpandSettings(Settings):
    """`nas expand`: networks of any depth out of a learngene."""

    run: str = setting(MISSING, "run of a training by sws or tleg", metavar="RUN", argument=True)
    depth: tuple[int, ...] = setting(
        MISSING, "layers of the network; several give one each", group=MODEL, metavar="N,N", read=depths
    )
    epochs: int = setting(
        0, "passes over the training data, to fine-tune the network", group=TRAINING, metavar="N", least=0
    )
    lr: float | None = setting(
        None, "peak learning rate; recipe finetune's if left out", group=TRAINING, metavar="X", least=0
    )
    batch_size: int | None = setting(
        None, "inputs per step; the run's if left out", group=TRAINING, metavar="N", least=1
    )
    seed: int = setting(
        0, "of the data order, and of a fresh head", group=TRAINING, metavar="N", least=0, most=2**32 - 1
    )
    device: str = setting("auto", "auto, cpu, cuda or cuda:N", group=TRAINING, metavar="DEVICE")
    data: str | None = setting(
        None, "other data than the run's; its head is fresh where classes differ", group=DATA, metavar="NAME"
    )
    data_dir: str | None = setting(None, "where the files of named data sets lie", group=DATA, metavar="DIR")
    image_size: int | None = setting(
        None, "height and width of other data, in pixels", group=DATA, metavar="N", least=4, most=4096
    )
    output: str | None = setting(
        None,
        "run folder to write, with several depths one in it for each; beside RUN if left out",
        group=RUN,
        metavar="DIR",
        short="-o",
    )
    checkpoint_minutes: float = setting(5.0, "minutes between checkpoints", group=RUN, metavar="X", least=0)
