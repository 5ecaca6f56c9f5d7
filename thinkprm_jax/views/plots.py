"""Draws panels with matplotlib and writes them as PNG and SVG.

    save_figure("runs/accuracy", [CurvesPanel([curve], x_label="solutions (N)", y_label="accuracy")])

The colours (Okabe and Ito's) can be told apart with any kind of colour vision, and no line is told by its colour
alone: each has its own marker, and its name beside its end. matplotlib is loaded when a figure is made.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.intervals import Estimate, share_estimate, show
from thinkprm_jax.evaluation.panels import AxisScale, Curve, CurvesPanel, Panel, PointsPanel, ReliabilityPanel
from thinkprm_jax.records.files import atomic_write
from thinkprm_jax.storage import Location, ObjectPath, location

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vPX"
REFERENCE = "#707070"
_ASIDE = {"linear": 1.0, "log2": 2**0.05, "log10": 1.01}  # factor of x from one curve to the next
_TEXT = 8.5  # points; of everything but titles
# The same input gives the same bytes; an SVG holds its text as text, to be read aloud, searched and copied.
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "thinkprm",
    "svg.fonttype": "none",
    "font.size": _TEXT,
    "axes.titlesize": 10,
}


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Fills the axes."""
    match panel:
        case CurvesPanel():
            _draw_curves(axes, panel)
        case ReliabilityPanel():
            _draw_reliability(axes, panel)
        case PointsPanel():
            _draw_points(axes, panel)


def _draw_curves(axes: Axes, panel: CurvesPanel) -> None:
    """Lines with bars for their intervals, named at their ends."""
    ends = []
    references = [curve.reference for curve in panel.curves]
    for index, ((colour, marker), curve) in enumerate(zip(_styles(references), panel.curves, strict=True)):
        points = [(x, y) for x, y in curve.points if not math.isnan(y.value)]
        if not points:
            continue
        # Intervals at one x beside one another, not on top.
        aside = _ASIDE[panel.x_scale] ** (index - (len(panel.curves) - 1) / 2)
        xs, ys = [x * aside for x, _ in points], [y.value for _, y in points]
        axes.errorbar(
            xs,
            ys,
            _spread([y for _, y in points]),
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.5,
            linestyle="--" if curve.reference else "-",
            elinewidth=1,
            capsize=2,
        )
        ends.append((curve.name, colour, xs[-1], ys[-1]))
        _mark_points(axes, curve, colour, aside, up=4 if index % 2 == 0 else -10)
    _scale_x(axes, panel.x_scale, sorted({x for curve in panel.curves for x, _ in curve.points}))
    _finish(axes, panel.x_label, panel.y_label, panel.title)
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda value, position: f"{100 * value:g}%")
    _name_ends(axes, ends)


def _mark_points(axes: Axes, curve: Curve, colour: str, aside: float, up: float) -> None:
    for (x, y), mark in zip(curve.points, curve.marks, strict=bool(curve.marks)):
        if not math.isnan(y.value):
            axes.annotate(
                mark,
                (x * aside, y.value),
                (-4, up),
                color=colour,
                textcoords="offset points",
                ha="right",
                fontsize=7,
            )


def _draw_reliability(axes: Axes, panel: ReliabilityPanel) -> None:
    """Shares with Wilson's intervals over the diagonal; below, the number of solutions in each bin."""
    axes.plot([0, 1], [0, 1], color=REFERENCE, linestyle="--", linewidth=1)
    axes.annotate("calibrated", (0.5, 0.5), (0, 3), textcoords="offset points", color=REFERENCE, rotation=32,
                  ha="center", rotation_mode="anchor")  # fmt: skip
    counts = axes.inset_axes((0, -0.33, 1, 0.22), sharex=axes)
    ends = []
    for (colour, marker), (name, bins) in zip(_styles([False] * len(panel.bins)), panel.bins.items(), strict=True):
        filled = [bin for bin in bins if bin.count]
        if not filled:
            continue
        total = sum(bin.count for bin in filled)
        shares = [share_estimate(round(bin.share_correct * bin.count), bin.count) for bin in filled]
        xs, ys = [bin.mean_score for bin in filled], [share.value for share in shares]
        axes.errorbar(xs, ys, _spread(shares), color=colour, marker=marker, markersize=4, linewidth=1, capsize=2)
        edges = [bins[0].low, *(bin.high for bin in bins)]
        counts.stairs([bin.count / total for bin in bins], edges, color=colour, fill=len(panel.bins) == 1)
        ends.append((f"{name} (n {total:,})", colour, xs[-1], ys[-1]))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.tick_params(labelbottom=False)
    counts.set_ylim(0, None)
    counts.spines[["top", "right"]].set_visible(False)
    counts.set_xlabel("score: probability that the solution is correct", fontsize=_TEXT)
    counts.set_ylabel("share", fontsize=_TEXT)
    _finish(axes, "", "share that is correct", panel.title)
    _name_ends(axes, ends)


def _draw_points(axes: Axes, panel: PointsPanel) -> None:
    """A row a figure, from the top."""
    colour, marker = COLOURS[0], MARKERS[0]
    for y, (_, estimate) in enumerate(panel.rows):
        if not math.isnan(estimate.value):
            axes.errorbar([estimate.value], [y], xerr=_spread([estimate]), color=colour, marker=marker, capsize=2)
            axes.annotate(show(estimate.value, False), (estimate.value, y), (0, 5),
                          textcoords="offset points", ha="center", color=colour)  # fmt: skip
    labels = [f"{name} (n {estimate.n:,})" for name, estimate in panel.rows]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels), -0.8)
    _finish(axes, panel.x_label, "", panel.title, grid="x")


def save_figure(
    path: str | Path | ObjectPath,
    panels: Sequence[Panel],
    *,
    columns: int = 2,
    size: tuple[float, float] = (5.2, 3.6),
) -> list[Location]:
    """Writes ``path``.png and ``path``.svg (``path`` has no suffix) and returns them; makes the folder.

    Args:
      panels: row by row. size: of each, in inches.
    Raises:
      UserError: a file cannot be written.
    """
    stem = location(path)
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    contents = [_render(panels, columns, size, kind) for kind in ("png", "svg")]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for file, content in zip(files, contents, strict=True):
            atomic_write(file, content)
    except OSError as error:
        raise UserError(f"{error.filename or stem}: cannot be written: {error.strerror}") from error
    return files


def _render(panels: Sequence[Panel], columns: int, size: tuple[float, float], kind: str) -> bytes:
    from matplotlib import rc_context

    with rc_context(_SETTINGS):
        figure = _figure(panels, columns, size)
        file = io.BytesIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type") if kind == "svg" else ("Software",))
        figure.savefig(file, format=kind, dpi=150, metadata=metadata, bbox_inches="tight")
    return file.getvalue()


def _figure(panels: Sequence[Panel], columns: int, size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    columns = max(1, min(columns, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        draw_panel(axes, panel)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _styles(references: Sequence[bool]) -> list[tuple[str, str]]:
    """(colour, marker) of each; those of references take none of the colours."""
    styles, index = [], 0
    for is_reference in references:
        if is_reference:
            styles.append((REFERENCE, "."))
            continue
        styles.append((COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]))
        index += 1
    return styles


def _spread(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the bars to both sides; none where the interval is undefined. A bootstrap's interval need not
    hold its value: then the bar ends at it."""
    below = [max(0.0, _number(e.value - e.low)) for e in estimates]
    above = [max(0.0, _number(e.high - e.value)) for e in estimates]
    return [below, above]


def _number(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _scale_x(axes: Axes, scale: AxisScale, xs: Sequence[float]) -> None:
    if scale == "linear":
        return
    axes.set_xscale("log", base=2 if scale == "log2" else 10)
    if scale == "log2" and xs:
        axes.set_xticks(xs, [f"{x:,g}" for x in xs])
        axes.minorticks_off()
        return
    from matplotlib.ticker import FuncFormatter, LogLocator

    low, high = min(xs, default=1), max(xs, default=1)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1,) if high > 50 * low else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, position: f"{x:,g}"))
    axes.minorticks_off()
    axes.set_xlim(low / 1.2, high * 1.2)


def _finish(axes: Axes, x_label: str, y_label: str, title: str, grid: Literal["x", "y"] = "y") -> None:
    axes.set_xlabel(x_label, fontsize=_TEXT)
    axes.set_ylabel(y_label, fontsize=_TEXT)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)


def _name_ends(axes: Axes, ends: Sequence[tuple[str, str, float, float]]) -> None:
    """Names right of the panel, at the heights of their lines' ends but never over one another; where a line ends
    early, its name is right beside its end.

    ends: (name, colour, x, y) of the last points.
    """
    if not ends:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    panel_height = axes.get_window_extent().height * 72 / axes.figure.dpi  # points
    last = max(_across(axes, x) for _, _, x, _ in ends)
    ordered = sorted(ends, key=lambda end: end[3])
    outside = [end for end in ordered if _across(axes, end[2]) > last - 0.15]
    heights = spread_out([(y - low) / (high - low) for *_, y in outside], gap=1.25 * _TEXT / panel_height)
    for (name, colour, x, y), height in zip(outside, heights, strict=True):
        axes.annotate(
            name,
            (x, y),
            (1.03, height),
            xycoords="data",
            textcoords="axes fraction",
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5, "shrinkB": 4},
        )
    for index, (name, colour, x, y) in enumerate(ends):
        if (name, colour, x, y) not in outside:
            up = 6 if index % 2 == 0 else -14
            axes.annotate(name, (x, y), (6, up), textcoords="offset points", color=colour, annotation_clip=False)


def _across(axes: Axes, x: float) -> float:
    """Where x lies between the left (0) and the right (1) end of the panel."""
    return float(axes.transAxes.inverted().transform(axes.transData.transform((x, axes.get_ylim()[0])))[0])


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved as little as a few rounds manage until neighbours are ``gap`` apart."""
    found = list(heights)
    for _ in range(200):
        moved = False
        for i in range(1, len(found)):
            short = gap - (found[i] - found[i - 1])
            if short > 1e-9:
                found[i - 1] -= short / 2
                found[i] += short / 2
                moved = True
        if not moved:
            break
    return found
