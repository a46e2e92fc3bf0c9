"""The front of a search as one HTML page: point at a network and see its arch. No network needed."""

from __future__ import annotations

import html
import textwrap
from pathlib import Path
from typing import Any

from nas.front_plot import CANDIDATE, CHOSEN, FRONT, INFEASIBLE, INK, TEST, FrontPlot, Point, coordinates
from supernets.files import atomic_write

# The policy holds the page to its word: nothing is loaded from or sent to anywhere.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>html, body {{ height: 100%; margin: 0; overflow: hidden; }}</style>
</head>
<body>
{picture}
</body>
</html>
"""


def interactive_front(figure: FrontPlot, path: str | Path) -> None:
    """Write the front as one HTML page at `path` that needs no network; pointing at a network shows its arch.

    Atomic, and the same figure gives the same bytes. Text of the figure is shown as text, whatever it holds.

    Raises:
        OSError: the file cannot be written.
    """
    from plotly import graph_objects

    front = figure.of("front")
    sheet = graph_objects.Figure()

    def add(name: str, points: list[Point], marker: dict[str, Any], **more: Any) -> None:
        if points:
            x, y = coordinates(points)
            text = [_hover(figure, point) for point in points]
            trace = {"x": x, "y": y, "mode": "markers", "hovertext": text, "hoverinfo": "text", **more}
            sheet.add_trace(graph_objects.Scatter(name=html.escape(name), marker=marker, **trace))

    add(
        "outside the limits",
        figure.of("infeasible"),
        {"symbol": "x-thin", "size": 7, "line": {"color": INFEASIBLE, "width": 1.5}},
    )
    add("other candidates", figure.of("candidate"), {"color": CANDIDATE, "opacity": 0.5, "size": 7})
    add(
        figure.test_name,
        figure.tested,
        {"symbol": "diamond-open", "color": TEST, "size": 8, "line": {"width": 1.8}},
        y=[point.test for point in figure.tested],
    )
    add(
        f"front ({len(front)})",
        front,
        {"color": FRONT, "size": 10, "line": {"color": "white", "width": 1}},
        mode="lines+markers" if figure.steps else "markers",
        line={"color": FRONT, "width": 2, "shape": figure.steps},
    )
    add(
        "chosen",
        [figure.chosen_point] if figure.chosen_point else [],
        {"symbol": "star", "color": CHOSEN, "size": 19},
    )
    sheet.update_layout(
        template="plotly_white",
        title={"text": f"<b>{html.escape(figure.title)}</b>", "x": 0.01},
        font={"size": 14, "color": INK},
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": INK}},
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0.01,
            "yanchor": "bottom",
            "x": 0.5,
            "xanchor": "center",
        },
        margin={"l": 80, "r": 30, "t": 70, "b": 110},
        xaxis={"title": html.escape(figure.axes[1].label), "type": "log" if figure.logarithmic else "linear"},
        yaxis={"title": html.escape(figure.axes[0].label)},
    )
    picture = sheet.to_html(
        include_plotlyjs=True,
        full_html=False,
        div_id="front",
        default_height="100vh",
        config={"displaylogo": False, "responsive": True},
    )
    atomic_write(path, PAGE.format(title=html.escape(figure.title), picture=picture).encode())


def _hover(figure: FrontPlot, point: Point) -> str:
    kind = {"candidate": "", "front": "on the front", "infeasible": "outside the limits"}[point.kind]
    lines = [f"<b>{html.escape(line)}</b>" for line in figure.describe(point)]
    rest = [html.escape(line) for line in [kind, *textwrap.wrap(point.label, 70)] if line]
    return "<br>".join(lines + rest)
