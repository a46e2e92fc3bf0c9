"""The settings of `nas search`, and how amounts and the rule that picks are written."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from nas.config import setting
from nas.option import one_of
from nas.resolve import names
from nas.setting_groups import GOAL, MODEL, RESULT, SEARCH
from nas.train_settings import TrainSettings
from search_spaces.errors import InputError

OBJECTIVES = ("accuracy", "perplexity", "latency", "params", "macs", "memory")


def amount(value: Any, unit: str = "") -> float:
    """A number of `unit` from a number, or from text such as 300k, 2M, 1.5G or 8ms.

    Raises:
        InputError: it is neither, not finite, or not above zero.
    """
    from nas.pick import parse_amount  # brings NumPy

    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError("expected a number, or text such as 300k, 2M or 1.5G")
    text = str(value).strip()
    if unit and text.lower().endswith(unit.lower()):
        text = text[: -len(unit)]
    number = parse_amount(text)
    if number <= 0:
        raise InputError("must be above 0")
    return number


def count(value: Any, unit: str = "") -> int:
    """`amount`, as a whole number."""
    return round(amount(value, unit))


def _pick(value: Any) -> str:
    from nas.pick import parse_pick  # brings NumPy

    if not isinstance(value, str):
        raise InputError("expected text: knee, or comparisons such as 'latency<2'")
    if value != "knee":
        parse_pick(value)
    return value


@dataclass(frozen=True)
class SearchSettings(TrainSettings):
    """`nas search`: a supernet, what to search it for, and what to hand over.

    The fields of `TrainSettings` serve the supernet that is trained when `supernet` names none.
    """

    supernet: str | None = setting(
        None, "run of 'nas train' to search; trained first if left out", group=MODEL, metavar="RUN"
    )
    target: str | None = setting(
        None,
        "device: jetson, cpu, or another that 'nas targets' lists; cpu, timed here, if left out",
        group=GOAL,
        metavar="NAME",
    )
    target_precision: str | None = setting(
        None,
        "arithmetic on the target, not its usual one",
        group=GOAL,
        metavar="NAME",
        names=one_of("fp32", "fp16", "int8"),
    )
    target_batch: int | None = setting(
        None, "inputs per inference on the target; usually 1", group=GOAL, metavar="N", least=1
    )
    objectives: tuple[str, ...] | None = setting(
        None,
        "what to trade against each other; if left out, accuracy (of text: perplexity) and latency",
        group=GOAL,
        metavar="NAME,NAME",
        names=one_of(*OBJECTIVES),
    )
    max_latency_ms: float | None = setting(
        None, "most latency, in ms", group=GOAL, metavar="X", read=partial(amount, unit="ms")
    )
    max_params: int | None = setting(
        None, "most parameters: 300k, 2M", group=GOAL, metavar="COUNT", read=count
    )
    max_macs: int | None = setting(
        None, "most multiply-adds per input: 50M, 1.5G", group=GOAL, metavar="COUNT", read=count
    )
    max_memory: int | None = setting(
        None,
        "most bytes of weights and activations: 800k, 4M",
        group=GOAL,
        metavar="BYTES",
        read=partial(count, unit="B"),
    )
    searcher: str = setting(
        "nsga2", "how to search", group=SEARCH, metavar="NAME", names=partial(names, "searcher"), own=True
    )
    evaluations: int = setting(
        300, "networks to evaluate", group=SEARCH, metavar="N", least=1, most=1_000_000, portable=True
    )
    population: int = setting(20, "networks per generation", group=SEARCH, metavar="N", least=2)
    storage: str | None = setting(
        None,
        "database of the study, postgresql://...; study.db in the run folder if left out",
        group=SEARCH,
        metavar="URL",
    )
    pick: str = setting(
        "knee",
        "network to hand over: knee, or limits such as 'latency<2' or 'accuracy>0.97, params<2M'",
        group=RESULT,
        metavar="RULE",
        read=_pick,
        portable=True,
    )
    format: str = setting(
        "onnx",
        "file to hand over",
        group=RESULT,
        metavar="NAME",
        names=one_of("onnx", "safetensors"),
        portable=True,
    )
    export: bool = setting(True, "write the file of the picked network", group=RESULT, portable=True)
    open: bool = setting(
        False, "open the plot in the browser when the search is done", group=RESULT, portable=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        named = self.objectives or ()
        if len(set(named)) != len(named):
            raise InputError(f"objectives names one twice: {', '.join(named)}")

    def training(self) -> TrainSettings:
        """The settings of the supernet's training, for `nas.train.run`."""
        return TrainSettings(**{f.name: getattr(self, f.name) for f in fields(TrainSettings)})
