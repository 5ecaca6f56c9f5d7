"""Pictures: that they hold what they are made of, and that they can be made of anything."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as xml

import numpy as np
import pytest
from matplotlib.figure import Figure

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.estimates import Estimate, share_estimate
from thinkprm_jax.evaluation.metrics import reliability_bins
from thinkprm_jax.evaluation.plots import (
    Curve,
    draw_curves,
    draw_points,
    draw_reliability,
    save_figure,
    spread_out,
    svg_text,
)

UNDEFINED = Estimate(math.nan, math.nan, math.nan, 0)
CURVES = [
    Curve("weighted", [(n, share_estimate(0.4 + 0.1 * i, 50)) for i, n in enumerate((1, 2, 4))]),
    Curve("pass@N", [(n, share_estimate(0.5 + 0.1 * i, 50)) for i, n in enumerate((1, 2, 4))], reference=True),
]
BINS = reliability_bins([0.1, 0.2, 0.8, 0.9, 0.95], [0, 1, 1, 1, 0])


def texts(svg: str) -> list[str]:
    """Everything that is written in a picture."""
    return [
        "".join(element.itertext()) for element in xml.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_a_curve_is_at_its_figures_with_their_intervals():
    axes = Figure().subplots()
    curve = Curve("a", [(10, Estimate(0.5, 0.3, 0.8, 9)), (20, Estimate(0.6, 0.5, 0.7, 9))])
    draw_curves([curve], x_label="x", y_label="y", x_scale="linear")(axes)
    line, _, (bars,) = axes.containers[0].lines
    assert line.get_xydata().tolist() == [[10, 0.5], [20, 0.6]]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert ends == pytest.approx(np.array([[0.3, 0.8], [0.5, 0.7]]))


def test_every_curve_is_named_and_every_n_stands_at_the_axis():
    found = texts(svg_text([draw_curves(CURVES, x_label="solutions (N)", y_label="accuracy", percent=True)]))
    assert {"weighted", "pass@N", "1", "2", "4", "solutions (N)", "accuracy"} <= set(found)
    assert "50%" in found


def test_undefined_figures_are_left_out():
    curve = Curve("a", [(1, UNDEFINED), (2, share_estimate(0.5, 10))])
    axes = Figure().subplots()
    draw_curves([curve, Curve("nothing", [(1, UNDEFINED)])], x_label="", y_label="")(axes)
    assert len(axes.containers) == 1
    assert axes.containers[0].lines[0].get_ydata().tolist() == [0.5]


def test_reliability_shows_the_bins_and_how_many_solutions_they_are_of():
    axes = Figure().subplots()
    draw_reliability({"mini": BINS})(axes)
    points = axes.containers[0].lines[0].get_xydata()
    assert points == pytest.approx(np.array([[b.mean_score, b.share_correct] for b in BINS if b.count]))
    assert "mini (n 5)" in texts(svg_text([draw_reliability({"mini": BINS})]))


def test_points_have_their_n_and_their_value():
    rows = {"F1": [("gsm8k", share_estimate(0.75, 400)), ("math", UNDEFINED)]}
    found = texts(svg_text([draw_points(rows, x_label="F1")]))
    assert {"gsm8k (n 400)", "0.750", "math (n 0)"} <= set(found)


def test_files_are_written_and_the_same_every_time(tmp_path):
    draws = [draw_curves(CURVES, x_label="x", y_label="y"), draw_reliability({"a": BINS, "b": BINS})]
    first, second = (save_figure(tmp_path / name / "figure", draws) for name in ("a", "b"))
    assert [file.name for file in first] == ["figure.png", "figure.svg"]
    assert first[0].read_bytes()[:4] == b"\x89PNG"
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_an_svg_for_a_page_loads_nothing():
    svg = svg_text([draw_curves(CURVES, x_label="x", y_label="y")])
    assert svg.startswith("<svg")
    for element in xml.fromstring(svg).iter():
        assert not any("href" in name and not value.startswith("#") for name, value in element.attrib.items())


def test_a_figure_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_figure(tmp_path / "file" / "figure", [draw_curves(CURVES, x_label="", y_label="")])


@pytest.mark.parametrize("places", [[0.5, 0.5, 0.5], [0.1, 0.11, 0.9], [0.3], []])
def test_names_are_spread_out(places):
    found = spread_out(places, 0.1)
    assert all(b - a >= 0.1 - 1e-6 for a, b in itertools.pairwise(found))
    assert sum(found) == pytest.approx(sum(places))  # moved to both sides alike
