"""The front of a search as pictures: a PNG or SVG for documents, and an HTML page that answers when pointed
at.

figure = FrontPlot(axes=(accuracy, latency), points=points, chosen=7, title="fashion-mnist on
jetson-orin-nano") plot_front(figure, "front.png") interactive_front(figure, "front.html")
"""

from __future__ import annotations

import io
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.front_page import interactive_front
from nas.front_plot import (
    CANDIDATE,
    CHOSEN,
    FRONT,
    INFEASIBLE,
    INK,
    TEST,
    Axis,
    FrontPlot,
    Kind,
    Point,
    coordinates,
)
from search_spaces.errors import InputError
from supernets.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from numpy.typing import NDArray

__all__ = ["Axis", "FrontPlot", "Kind", "Point", "interactive_front", "plot_front"]

FORMATS = (".png", ".svg")
SIZE_PX = (1200, 800)


def plot_front(figure: FrontPlot, path: str | Path) -> None:
    """Draw the front at `path`, a PNG of 1200 x 800 or an SVG by its ending, written atomically.

    The same figure gives the same bytes. No display and no global state: safe on servers.

    Raises:
        InputError: another ending than .png or .svg.
        OSError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise InputError(
            f"{Path(path).name} must end in {' or '.join(FORMATS)}; interactive_front writes .html"
        )
    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 13,
        "text.parse_math": False,
        "svg.hashsalt": "nas",
    }
    with rc_context(style):
        sheet = Figure(figsize=(SIZE_PX[0] / 100, SIZE_PX[1] / 100), dpi=100)
        sheet.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.15))
        canvas = FigureCanvasAgg(sheet)
        axes = sheet.add_subplot()
        _dress(axes, figure)
        _draw_points(axes, figure)
        if axes.get_legend_handles_labels()[0]:
            sheet.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=12, handletextpad=0.4)
        canvas.draw()
        sheet.set_layout_engine("none")  # settled; the label below is placed in it and must not move it
        _label_chosen(axes, figure, canvas)
        picture = io.BytesIO()
        none = {"Software": None} if ending == ".png" else {"Date": None}
        sheet.savefig(picture, format=ending[1:], metadata=none)
    atomic_write(path, picture.getvalue())


def _dress(axes: Axes, figure: FrontPlot) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    up, across = figure.axes[:2]
    axes.set_ylabel(up.label, color=INK, labelpad=10)
    axes.set_xlabel(across.label, color=INK, labelpad=8)
    axes.set_title(figure.title, loc="left", fontsize=16, fontweight="bold", color=INK, pad=14)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(CANDIDATE)
    axes.tick_params(colors=INK, color=CANDIDATE)
    axes.grid(color="#E6E9EE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(0.06)
    if figure.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    for axis, position in ((axes.yaxis, 0), (axes.xaxis, 1)):
        sizes = [abs(p.values[position]) for p in figure.points if isfinite(p.values[position])]
        if sizes and max(sizes) >= 1e5:
            axis.set_major_formatter(EngFormatter(sep=""))


def _draw_points(axes: Axes, figure: FrontPlot) -> None:
    faint, grey, front = figure.of("candidate"), figure.of("infeasible"), figure.of("front")
    if grey:
        axes.scatter(
            *coordinates(grey),
            s=26,
            marker="x",
            color=INFEASIBLE,
            linewidths=1.3,
            zorder=1,
            label="outside the limits",
        )
    if faint:
        axes.scatter(
            *coordinates(faint),
            s=24,
            color=CANDIDATE,
            alpha=0.45,
            linewidths=0,
            zorder=2,
            label="other candidates",
        )
    if front:
        x, y = coordinates(front)
        name = (
            f"front ({len(front)})"
            if figure.steps
            else f"front of {len(figure.axes)} objectives ({len(front)})"
        )
        line = {"hv": "steps-post", "vh": "steps-pre", None: "default"}[figure.steps]
        axes.plot(
            x,
            y,
            drawstyle=line,
            linestyle="-" if figure.steps else "none",
            linewidth=2,
            color=FRONT,
            marker="o",
            markersize=7.5,
            markeredgecolor="white",
            markeredgewidth=1.2,
            zorder=3,
            label=name,
        )
    if figure.tested:
        x, valid = coordinates(figure.tested)
        y = [float(point.test or 0) for point in figure.tested]
        axes.vlines(x, valid, y, color=TEST, linewidth=1, alpha=0.5, zorder=2.5)
        axes.scatter(
            x,
            y,
            s=34,
            marker="D",
            facecolors="white",
            edgecolors=TEST,
            linewidths=1.5,
            zorder=2.8,
            label=figure.test_name,
        )
    chosen = figure.chosen_point
    if chosen is not None:
        axes.scatter(
            *coordinates([chosen]),
            s=330,
            marker="*",
            color=CHOSEN,
            edgecolors="white",
            linewidths=1.2,
            zorder=5,
            label="chosen",
        )


def _label_chosen(axes: Axes, figure: FrontPlot, canvas: FigureCanvasAgg) -> None:
    """The values of the chosen point beside it, where they cover the least."""
    chosen = figure.chosen_point
    if chosen is None:
        return
    note = axes.annotate(
        "\n".join(figure.describe(chosen)),
        (chosen.values[1], chosen.values[0]),
        xytext=(0, 0),
        textcoords="offset pixels",
        fontsize=12,
        color=INK,
        linespacing=1.35,
        zorder=6,
        bbox={"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": CHOSEN, "linewidth": 1.2},
        arrowprops={"arrowstyle": "-", "color": CHOSEN, "linewidth": 1.2, "shrinkB": 9},
    )
    canvas.draw()
    patch = note.get_bbox_patch()
    assert patch is not None
    box = patch.get_window_extent(canvas.get_renderer())
    room = axes.get_window_extent(canvas.get_renderer())
    at = axes.transData.transform((chosen.values[1], chosen.values[0]))
    size = np.array([box.width, box.height])
    marks = axes.transData.transform(np.array(_marks(figure), dtype=float))

    def cost(low: NDArray[np.float64]) -> float:
        high = low + size
        covered = ((marks > low - 8) & (marks < high + 8)).all(axis=1).sum()
        outside = max(0.0, room.x0 - low[0], room.y0 - low[1], high[0] - room.x1, high[1] - room.y1)
        return float(covered * 100 + outside * 50 + np.abs(low + size / 2 - at).sum() * 0.1)

    toward = [
        (x, y) for x in (-1, -0.5, 0, 0.5, 1) for y in (-1, -0.5, 0, 0.5, 1) if max(abs(x), abs(y)) == 1
    ]
    places = [at - size / 2 + np.array(d) * (size / 2 + r) for r in (25, 50, 90, 140, 200) for d in toward]
    best = min(places, key=cost)
    note.set_position(tuple(best - (box.x0, box.y0)))


def _marks(figure: FrontPlot) -> list[tuple[float, float]]:
    """What a label should not cover, as places of the plot: the points, and the line of the front."""
    drawn = [p for p in figure.points if all(map(isfinite, p.values))]
    marks = [(p.values[1], p.values[0]) for p in drawn]
    for p in figure.tested:
        marks += [(p.values[1], float(y)) for y in np.linspace(p.values[0], p.test or 0, 5)]
    front = figure.of("front") if figure.steps else []
    for a, b in pairwise(front):
        level, turn = (a.values[0], b.values[1]) if figure.steps == "hv" else (b.values[0], a.values[1])
        along = [(float(x), level) for x in np.linspace(a.values[1], b.values[1], 9)]
        marks += along + [(turn, float(y)) for y in np.linspace(a.values[0], b.values[0], 9)]
    return marks
