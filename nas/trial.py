"""What a study holds: its metrics, its trials, and how a trial is written as one of Optuna's."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from search_spaces.arch import Arch
from search_spaces.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RESERVED = ("arch", "digest")  # trial attributes that are ours


@dataclass(frozen=True)
class MetricSpec:
    """What a study measures: `MetricSpec("latency", "ms", "minimize")`. An empty unit is a plain number."""

    name: str
    unit: str
    direction: Literal["maximize", "minimize"]

    def __post_init__(self) -> None:
        if self.direction not in ("maximize", "minimize"):
            raise InputError(
                f"metric {self.name!r}: direction {self.direction!r} is not maximize or minimize"
            )

    @property
    def label(self) -> str:
        """Name and unit, as columns and axes show them: "latency (ms)"."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Trial:
    """One evaluated arch.

    Attributes:
        number: its place in the study, from 0; gaps are evaluations that failed.
        arch: what was evaluated.
        values: metric name to value, in the metric's unit.
        constraints: constraint name to violation; at most 0 is kept.
        summary: a few numbers that describe the arch, such as its depth.
        attrs: whatever else is known (JSON): provenance of each metric, spreads, MACs.
    """

    number: int
    arch: Arch
    values: dict[str, float]
    constraints: dict[str, float] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        """Whether every constraint is kept; without constraints, always."""
        return all(violation <= 0 for violation in self.constraints.values())


def freeze(trial: Trial, bounds: Mapping[str, tuple[float, float]], seconds: float) -> FrozenTrial:
    """Optuna's form of `trial`, whose evaluation took `seconds` and ended now.

    `bounds` holds lowest and highest value of each summary number.
    """
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    violations = trial.constraints
    frozen = create_trial(
        state=TrialState.COMPLETE,
        values=list(trial.values.values()),
        params=dict(trial.summary),
        distributions={k: FloatDistribution(low, high) for k, (low, high) in bounds.items()},
        user_attrs={"digest": trial.arch.digest, "arch": trial.arch.to_json(), **trial.attrs},
        constraints=violations or None,
        # The dashboard (0.21) reads violations from this list only, Optuna 5 from `constraints`.
        system_attrs={"constraints": list(violations.values())} if violations else None,
    )
    assert frozen.datetime_start is not None
    frozen.datetime_start -= timedelta(seconds=seconds)
    return frozen


def freeze_failure(arch: Arch, reason: str, seconds: float) -> FrozenTrial:
    """Optuna's form of an evaluation that failed after `seconds`, now."""
    from optuna.trial import TrialState, create_trial

    attrs = {"digest": arch.digest, "arch": arch.to_json(), "reason": reason}
    frozen = create_trial(state=TrialState.FAIL, user_attrs=attrs)
    assert frozen.datetime_start is not None
    frozen.datetime_start -= timedelta(seconds=seconds)
    return frozen


def thaw(frozen: FrozenTrial, metrics: Sequence[MetricSpec], constraints: Sequence[str]) -> Trial:
    """The trial that `freeze` wrote."""
    violations = frozen.constraints  # holds the dashboard's list too, under "0", "1", ...
    return Trial(
        number=frozen.number,
        arch=Arch.from_json(frozen.user_attrs["arch"]),
        values={m.name: value for m, value in zip(metrics, frozen.values)},
        constraints={name: violations[name] for name in constraints},
        summary=dict(frozen.params),
        attrs={k: v for k, v in frozen.user_attrs.items() if k not in RESERVED},
    )


def finite(what: str, given: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """`given` as plain floats in the order of `names`.

    Raises:
        ValueError: a name is missing or unknown, or a value is NaN or infinite.
    """
    for name in given:
        if name not in names:
            raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, names)}")
    values = {}
    for name in names:
        if name not in given:
            raise ValueError(f"{what} {name!r} is missing (given: {', '.join(given) or 'none'})")
        values[name] = float(given[name])
        if not math.isfinite(values[name]):
            raise ValueError(f"{what} {name!r} is {values[name]}; only finite numbers are recorded")
    return values


def json_attrs(attrs: Mapping[str, object], reserved: Sequence[str]) -> dict[str, Any]:
    """`attrs` as a reader of the database will get them: tuples as lists, NumPy numbers as plain ones.

    Raises:
        ValueError: a reserved name, or a value that JSON cannot hold (NaN and infinity among them).
    """
    for name, value in attrs.items():
        if name in reserved:
            raise ValueError(f"attribute {name!r} is the study's own (reserved: {', '.join(reserved)})")
        try:
            json.dumps({name: value}, allow_nan=False, default=_plain_number)
        except (TypeError, ValueError) as error:
            raise ValueError(f"attribute {name!r} cannot be kept as JSON: {error}") from None
    plain: dict[str, Any] = json.loads(json.dumps(attrs, default=_plain_number))
    return plain


def _plain_number(value: Any) -> object:
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def check_text(what: str, text: str) -> None:
    """Returns when `text` can be a name in every database.

    Raises:
        InputError: empty, longer than 512 characters, or with control characters or lone surrogates.
    """
    if not 1 <= len(text) <= 512:
        raise InputError(f"{what} {text[:40]!r} has {len(text)} characters; 1 to 512 are possible")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise InputError(f"{what} {text[:40]!r} contains a control character; write it without")


def check_names(what: str, names: Sequence[str]) -> None:
    """Returns when `names` are distinct and each can be a name. Raises InputError when not."""
    for name in names:
        check_text(what, name)
    if twice := {name for name in names if list(names).count(name) > 1}:
        raise InputError(f"{what} {min(twice)!r} is given twice")
