"""What a picture of a front shows: its axes, its points, and how they are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypeAlias

from search_spaces.errors import InputError

Kind: TypeAlias = Literal["candidate", "front", "infeasible"]

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey by their markers.
FRONT, CHOSEN, TEST, CANDIDATE, INFEASIBLE, INK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#8A94A6",
    "#C9CED6",
    "#20242B",
)
LOG_FROM = 50  # a horizontal axis whose largest value is this many times its smallest is drawn in logarithms


@dataclass(frozen=True, slots=True)
class Axis:
    """One objective, and where its numbers come from."""

    name: str
    unit: str = ""
    where: str = ""  # a device or a data set
    provenance: str = ""  # "estimated: roofline", "measured: 2000 images"
    maximise: bool = False

    @property
    def label(self) -> str:
        """For example `latency on jetson-orin-nano, ms (estimated: roofline)`."""
        return (
            self.name
            + (f" on {self.where}" if self.where else "")
            + (f", {self.unit}" if self.unit else "")
            + (f" ({self.provenance})" if self.provenance else "")
        )


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluated network."""

    values: tuple[float, ...]  # one per axis, in the unit of the axis
    kind: Kind = "candidate"
    label: str = ""  # its arch, in a line
    test: float | None = None  # the first objective on the test data


@dataclass(frozen=True, slots=True)
class FrontPlot:
    """What a picture of a front shows.

    The first axis is drawn upwards, the second to the right. Further ones appear only when pointed at, and
    the front is then a projection, whose points are not joined. Points with a value that is not finite are
    left out.

    Raises:
        InputError: fewer than two axes, or a point with another number of values.
    """

    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    chosen: int | None = None  # the position in `points`
    title: str = ""

    def __post_init__(self) -> None:
        if len(self.axes) < 2:
            raise InputError(f"a front has at least two objectives, not {len(self.axes)}")
        for i, point in enumerate(self.points):
            if len(point.values) != len(self.axes):
                raise InputError(f"point {i} has {len(point.values)} values for {len(self.axes)} objectives")
        if self.chosen is not None and not 0 <= self.chosen < len(self.points):
            raise InputError(f"the chosen point {self.chosen} is not one of the {len(self.points)} points")

    def of(self, kind: Kind) -> list[Point]:
        """The points of a kind that can be drawn, from left to right."""
        drawable = [p for p in self.points if p.kind == kind and all(map(isfinite, p.values))]
        return sorted(drawable, key=lambda p: (p.values[1], p.values[0]))

    @property
    def chosen_point(self) -> Point | None:
        """The chosen point, if there is one and it can be drawn."""
        point = None if self.chosen is None else self.points[self.chosen]
        return point if point is not None and all(map(isfinite, point.values)) else None

    @property
    def steps(self) -> str | None:
        """How the front is joined: "hv" keeps the best so far to the right, "vh" to the left; None: not at
        all."""
        if len(self.axes) > 2:
            return None
        return "vh" if self.axes[1].maximise else "hv"

    @property
    def logarithmic(self) -> bool:
        """Whether the horizontal axis spans so much that only logarithms show it."""
        across = [p.values[1] for p in self.points if all(map(isfinite, p.values))]
        return bool(across) and min(across) > 0 and max(across) / min(across) >= LOG_FROM

    @property
    def tested(self) -> list[Point]:
        """The points that have a value on the test data and can be drawn."""
        return [
            p for p in self.points if p.test is not None and isfinite(p.test) and all(map(isfinite, p.values))
        ]

    def describe(self, point: Point) -> list[str]:
        """One line per number of a point: name, value, unit."""
        lines = [_line(axis.name, value, axis.unit) for axis, value in zip(self.axes, point.values)]
        if point.test is not None:
            lines.append(_line(self.test_name, point.test, self.axes[0].unit))
        return lines

    @property
    def test_name(self) -> str:
        """What the first objective is called where it was computed on the test data."""
        return f"{self.axes[0].name} on test data"


def coordinates(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """The points' places from left to right, and upwards."""
    return [p.values[1] for p in points], [p.values[0] for p in points]


def _line(name: str, value: float, unit: str) -> str:
    number = f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{name} {number} {unit}".rstrip()
