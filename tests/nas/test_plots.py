"""Pictures of the front."""

from __future__ import annotations

import sys
from math import inf, nan

import numpy as np
import pytest
from PIL import Image

from nas.plots import Axis, FrontPlot, Point, interactive_front, plot_front
from search_spaces.errors import InputError

ACCURACY = Axis("accuracy", where="flowers", provenance="measured: 100 images", maximise=True)
LATENCY = Axis("latency", "ms", "jetson-orin-nano", "estimated: roofline")
PARAMS = Axis("parameters", provenance="computed")
POINTS = (
    Point((0.80, 1.0), "front", "small", 0.79),
    Point((0.90, 2.0), "front", "middle <script>alert(1)</script> & </script>", 0.88),
    Point((0.91, 4.0), "front", "large", 0.90),
    Point((0.70, 3.0), "candidate", "poor"),
    Point((0.95, 9.0), "infeasible", "slow"),
    Point((nan, 9.0), "candidate", "failed"),
    Point((0.5, inf), "infeasible", "endless"),
)
FIGURE = FrontPlot((ACCURACY, LATENCY), POINTS, chosen=1, title="flowers <b>& more</b>, 5 $x$")


def test_labels_say_where_a_number_comes_from():
    assert LATENCY.label == "latency on jetson-orin-nano, ms (estimated: roofline)"
    assert Axis("error").label == "error"
    assert FIGURE.describe(POINTS[1]) == ["accuracy 0.9", "latency 2 ms", "accuracy on test data 0.88"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("plots") / "front.png"
    plot_front(FIGURE, path)
    return path


def test_png_has_its_size_and_shows_each_kind_of_point(picture):
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    assert Image.open(picture).size == (1200, 800)
    for colour in ("#0072B2", "#D55E00", "#009E73"):
        want = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels.astype(int) - want).max(axis=1) < 8).sum() > 50, colour


def test_nothing_touches_the_edge_of_the_picture(picture):
    pixels = np.asarray(Image.open(picture).convert("L"))
    edge = np.concatenate(
        [pixels[:6].ravel(), pixels[-6:].ravel(), pixels[:, :6].ravel(), pixels[:, -6:].ravel()]
    )
    assert edge.min() == 255


def test_the_same_figure_gives_the_same_bytes_and_no_global_state(picture, tmp_path):
    plot_front(FIGURE, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == picture.read_bytes()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_svg_by_its_ending(tmp_path):
    plot_front(FIGURE, tmp_path / "front.svg")
    text = (tmp_path / "front.svg").read_text()
    assert "<svg" in text
    assert "alert(1)</script>" not in text
    with pytest.raises(InputError, match=r"front.bmp must end in .png or .svg"):
        plot_front(FIGURE, tmp_path / "front.bmp")


@pytest.mark.parametrize(
    "figure",
    [
        FrontPlot((ACCURACY, LATENCY), ()),
        FrontPlot((ACCURACY, LATENCY), POINTS[:1], chosen=0),
        FrontPlot((ACCURACY, LATENCY), (Point((nan, nan), "front"),), chosen=0),
        FrontPlot((ACCURACY, LATENCY), tuple(Point((0.1 * i, 10.0**i), "front") for i in range(5)), chosen=4),
        FrontPlot(
            (ACCURACY, LATENCY, PARAMS), tuple(Point((*p.values, 1e6), p.kind) for p in POINTS), chosen=2
        ),
        FrontPlot((Axis("error"), Axis("speed", maximise=True)), POINTS[:3]),
    ],
    ids=["none", "one", "not finite", "logarithmic", "three objectives", "other directions"],
)
def test_unusual_figures_are_drawn(figure, tmp_path):
    plot_front(figure, tmp_path / "front.png")
    interactive_front(figure, tmp_path / "front.html")
    assert Image.open(tmp_path / "front.png").size == (1200, 800)
    assert (tmp_path / "front.html").read_text().endswith("</html>\n")


def test_the_page_is_whole_loads_nothing_and_shows_text_as_text(tmp_path):
    interactive_front(FIGURE, tmp_path / "front.html")
    page = (tmp_path / "front.html").read_text()
    ours = page[: page.index("plotly.js v")] + page[page.rindex("Plotly.newPlot") :]
    assert "default-src 'none'" in ours
    assert "src=" not in ours
    assert "http" not in ours.replace("http-equiv", "")
    assert "<script>alert" not in page
    assert "alert(1)" in ours
    assert "small" in ours
    assert "estimated: roofline" in ours
    assert "<b>& more" not in ours
    interactive_front(FIGURE, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page


def test_figures_that_make_no_sense():
    with pytest.raises(InputError, match="at least two objectives, not 1"):
        FrontPlot((ACCURACY,), ())
    with pytest.raises(InputError, match="point 0 has 3 values for 2 objectives"):
        FrontPlot((ACCURACY, LATENCY), (Point((1.0, 2.0, 3.0)),))
    with pytest.raises(InputError, match="chosen point 7 is not one of the 7 points"):
        FrontPlot((ACCURACY, LATENCY), POINTS, chosen=7)
