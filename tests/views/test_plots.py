"""Pictures: that they hold what they are made of, and that they can be made of anything."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.intervals import Estimate, share_estimate, undefined
from thinkprm_jax.evaluation.metrics import reliability_bins
from thinkprm_jax.evaluation.panels import Curve, CurvesPanel, Panel, PointsPanel, ReliabilityPanel
from thinkprm_jax.views.plots import draw_panel, save_figure, spread_out

UNDEFINED = undefined()
CURVES = [
    Curve("weighted", [(n, share_estimate(20 + 5 * i, 50)) for i, n in enumerate((1, 2, 4))]),
    Curve("pass@N", [(n, share_estimate(25 + 5 * i, 50)) for i, n in enumerate((1, 2, 4))], reference=True),
]
BINS = reliability_bins([0.1, 0.2, 0.8, 0.9, 0.95], [0, 1, 1, 1, 0])


def draw(folder: Path, panel: Panel) -> xml.Element:
    """The SVG of a picture of one panel."""
    _, svg = save_figure(folder / "figure", [panel])
    return xml.fromstring(svg.read_text(encoding="utf-8"))


def texts(folder: Path, panel: Panel) -> list[str]:
    """Everything that is written in a picture."""
    elements = draw(folder, panel).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in elements]


def test_a_curve_is_at_its_figures_with_their_intervals():
    axes = Figure().subplots()
    curve = Curve("a", [(10, Estimate(0.5, 0.3, 0.8, 9)), (20, Estimate(0.6, 0.5, 0.7, 9))])
    draw_panel(axes, CurvesPanel([curve], x_label="x", y_label="y", x_scale="linear"))
    line, _, (bars,) = axes.containers[0].lines
    assert line.get_xydata().tolist() == [[10, 0.5], [20, 0.6]]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert ends == pytest.approx(np.array([[0.3, 0.8], [0.5, 0.7]]))


def test_every_curve_is_named_and_every_n_stands_at_the_axis(tmp_path):
    found = texts(tmp_path, CurvesPanel(CURVES, "solutions (N)", "accuracy", percent=True))
    assert {"weighted", "pass@N", "1", "2", "4", "solutions (N)", "accuracy"} <= set(found)
    assert "50%" in found


def test_undefined_figures_are_left_out():
    curve = Curve("a", [(1, UNDEFINED), (2, share_estimate(5, 10))])
    axes = Figure().subplots()
    draw_panel(axes, CurvesPanel([curve, Curve("nothing", [(1, UNDEFINED)])], x_label="", y_label=""))
    assert len(axes.containers) == 1
    assert axes.containers[0].lines[0].get_ydata().tolist() == [0.5]


def test_reliability_shows_the_bins_and_how_many_solutions_they_are_of(tmp_path):
    axes = Figure().subplots()
    draw_panel(axes, ReliabilityPanel({"mini": BINS}))
    points = axes.containers[0].lines[0].get_xydata()
    assert points == pytest.approx(np.array([[b.mean_score, b.share_correct] for b in BINS if b.count]))
    assert "mini (n 5)" in texts(tmp_path, ReliabilityPanel({"mini": BINS}))


def test_points_have_their_n_and_their_value(tmp_path):
    rows = [("gsm8k", share_estimate(300, 400)), ("math", UNDEFINED)]
    found = texts(tmp_path, PointsPanel(rows, x_label="F1"))
    assert {"gsm8k (n 400)", "0.750", "math (n 0)"} <= set(found)


def test_files_are_written_and_the_same_every_time(tmp_path):
    panels = [CurvesPanel(CURVES, x_label="x", y_label="y"), ReliabilityPanel({"a": BINS, "b": BINS})]
    first, second = (save_figure(tmp_path / name / "figure", panels) for name in ("a", "b"))
    assert [file.name for file in first] == ["figure.png", "figure.svg"]
    assert first[0].read_bytes()[:4] == b"\x89PNG"
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_an_svg_loads_nothing(tmp_path):
    for element in draw(tmp_path, CurvesPanel(CURVES, x_label="x", y_label="y")).iter():
        assert not any("href" in name and not value.startswith("#") for name, value in element.attrib.items())


def test_a_figure_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_figure(tmp_path / "file" / "figure", [CurvesPanel(CURVES, x_label="", y_label="")])


@pytest.mark.parametrize("places", [[0.5, 0.5, 0.5], [0.1, 0.11, 0.9], [0.3], []])
def test_names_are_spread_out(places):
    found = spread_out(places, 0.1)
    assert all(b - a >= 0.1 - 1e-6 for a, b in itertools.pairwise(found))
    assert sum(found) == pytest.approx(sum(places))  # moved to both sides alike
