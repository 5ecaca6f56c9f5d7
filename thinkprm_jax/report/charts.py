"""Plots as inline SVG, coloured by the page's style sheet, so that they follow its dark mode.

Marks never differ by colour alone: shapes, dashes or hatching tell them apart. Every plot comes with its table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from thinkprm_jax.evaluation.intervals import Estimate, share_estimate, show, show_interval
from thinkprm_jax.evaluation.metrics import reliability_bins
from thinkprm_jax.report.run import ReportSolution

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 40
BINS = 20


@dataclass(frozen=True)
class Chart:
    """svg: markup, all text in it escaped. head, rows: its data as a table."""

    key: str
    title: str
    caption: str
    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ChartFrame:
    """Data coordinates to places on the picture. x, y: (low, high)."""

    x: tuple[float, float]
    y: tuple[float, float]
    right: int = RIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        width, height = WIDTH - LEFT - self.right, HEIGHT - TOP - BOTTOM
        return round(LEFT + across * width, 1), round(TOP + (1 - up) * height, 1)

    def axes(
        self, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str], x_name: str, y_name: str
    ) -> list[str]:
        parts = []
        for value, text in y_ticks.items():
            x0, y = self.at(self.x[0], value)
            x1, _ = self.at(self.x[1], value)
            parts.append(f'<line class="grid" x1="{x0}" x2="{x1}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text class="tick end" x="{x0 - 6}" y="{y + 4}">{escape(text)}</text>')
        for value, text in x_ticks.items():
            x, y = self.at(value, self.y[0])
            parts.append(f'<text class="tick mid" x="{x}" y="{y + 15}">{escape(text)}</text>')
        middle = (LEFT + WIDTH - self.right) / 2
        parts.append(f'<text class="axis mid" x="{middle}" y="{HEIGHT - 6}">{escape(x_name)}</text>')
        parts.append(
            f'<text class="axis mid" transform="translate(11 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
            f"{escape(y_name)}</text>"
        )
        return parts


UNIT = {0.0: "0", 0.25: ".25", 0.5: ".5", 0.75: ".75", 1.0: "1"}
PERCENT = {0.0: "0%", 0.25: "25%", 0.5: "50%", 0.75: "75%", 1.0: "100%"}


def charts(solutions: Sequence[ReportSolution], curves: Mapping[str, Mapping[int, Estimate]]) -> list[Chart]:
    """Those that the run has data for."""
    judged = [solution for solution in solutions if solution.verdict_score is not None]
    known = [solution for solution in judged if solution.correct is not None]
    found = []
    if any(len(points) > 1 for points in curves.values()):
        found.append(accuracy_chart(curves))
    if judged:
        found.append(histogram(known or judged))
    if known:
        found.append(reliability_chart(known))
    return found


def accuracy_chart(curves: Mapping[str, Mapping[int, Estimate]]) -> Chart:
    """Lines over N on a logarithmic axis, with 95% intervals."""
    ns = sorted({n for points in curves.values() for n in points})
    frame = ChartFrame((math.log2(ns[0]), math.log2(ns[-1])), (0, 1), right=82)
    parts = frame.axes({math.log2(n): str(n) for n in ns}, PERCENT, "solutions a problem (N)", "accuracy")
    drawn = {method: points for method, points in curves.items() if points}
    ends = {
        method: frame.at(math.log2(max(points)), points[max(points)].value) for method, points in drawn.items()
    }
    heights = _apart({method: y for method, (_, y) in ends.items()}, 14)
    for number, (method, points) in enumerate(drawn.items()):
        spots = {n: frame.at(math.log2(n), estimate.value) for n, estimate in points.items()}
        path = " ".join(f"{x},{y}" for x, y in spots.values())
        parts.append(f'<g class="series s{number}"><polyline points="{path}"/>')
        for n, estimate in points.items():
            x = spots[n][0] + 3 * (number - 1.5)  # side by side, so that whiskers do not hide each other
            low, high = frame.at(0, estimate.low)[1], frame.at(0, estimate.high)[1]
            if not math.isnan(estimate.low):
                parts.append(f'<line class="whisker" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
            parts.append(_symbol(number, *spots[n], f"{method}@{n}: {show(estimate.value, True)}"))
        x, y = ends[method][0] + 9, heights[method] + 4
        parts.append(f'<text class="label" x="{x}" y="{y}">{escape(method)}</text></g>')
    rows = [
        (method, str(n), show(estimate.value, True), show_interval(estimate, True), f"{estimate.n:,}")
        for method, points in drawn.items()
        for n, estimate in points.items()
    ]
    return Chart(
        "accuracy",
        "Accuracy by N",
        "Share of problems whose selected answer is right; whiskers: 95%.",
        _picture("accuracy", "Accuracy by N", parts),
        ("selection", "N", "accuracy", "95% interval", "problems"),
        tuple(rows),
    )


def histogram(solutions: Sequence[ReportSolution]) -> Chart:
    """Scores of correct and of incorrect solutions, side by side in each bin."""
    names = {True: "correct", False: "incorrect"} if solutions[0].correct is not None else {None: "solutions"}
    counts = {truth: [0] * BINS for truth in names}
    for solution in solutions:
        assert solution.verdict_score is not None
        counts[solution.correct][min(int(solution.verdict_score * BINS), BINS - 1)] += 1
    ticks = _round_ticks(max(max(column) for column in counts.values()))
    frame = ChartFrame((0, 1), (0, max(ticks)))
    parts = [_HATCH, *frame.axes(UNIT, {tick: f"{tick:,.0f}" for tick in ticks}, "P(correct)", "solutions")]
    spans = [f"{place / BINS:.2f} to {(place + 1) / BINS:.2f}" for place in range(BINS)]
    for place, span in enumerate(spans):
        said = ", ".join(f"{counts[truth][place]:,} {name}" for truth, name in names.items())
        parts.append(f'<g class="bin" data-low="{place / BINS}" data-high="{(place + 1) / BINS}">')
        parts.append(f"<title>{span}: {said}</title>")
        parts += _bars(frame, place, {truth: counts[truth][place] for truth in names})
        parts.append("</g>")
    rows = [(span, *(f"{counts[truth][place]:,}" for truth in names)) for place, span in enumerate(spans)]
    legend = "" if None in names else " Plain: correct solutions; hatched: incorrect ones."
    title = "Scores of the verdicts"
    caption = f"How many solutions got which score.{legend}"
    picture = _picture("scores", title, parts)
    return Chart("scores", title, caption, picture, ("score", *names.values()), tuple(rows))


def _bars(frame: ChartFrame, place: int, counts: Mapping[bool | None, int]) -> list[str]:
    """The bars of a bin, side by side, and the ground they stand on, which can be clicked."""
    (left, floor), (right, _) = frame.at(place / BINS, 0), frame.at((place + 1) / BINS, 0)
    wide = (right - left - 2) / len(counts)
    parts = [_rectangle("catch", left, TOP, right - left, floor - TOP)]
    for side, (truth, count) in enumerate(counts.items()):
        if count:
            y = min(frame.at(0, count)[1], floor - 2)  # at least 2 high: one solution among a thousand is seen
            kind = {True: "good", False: "bad", None: "plain"}[truth]
            parts.append(_rectangle(f"bar {kind}", left + 1 + side * wide, y, wide, floor - y))
    return parts


def reliability_chart(solutions: Sequence[ReportSolution]) -> Chart:
    """For each tenth of the scores, how often the solutions are correct."""
    scores = [s.verdict_score for s in solutions if s.verdict_score is not None]
    bins = [bin for bin in reliability_bins(scores, [bool(s.correct) for s in solutions]) if bin.count]
    frame = ChartFrame((-0.03, 1.03), (-0.05, 1.05))  # room for the dots at the corners, where most of them are
    parts = frame.axes(UNIT, PERCENT, "mean P(correct)", "correct")
    (x0, y0), (x1, y1) = frame.at(0, 0), frame.at(1, 1)
    parts.append(f'<line class="ideal" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    rows = []
    for bin in bins:
        estimate = share_estimate(round(bin.share_correct * bin.count), bin.count)
        x, y = frame.at(bin.mean_score, bin.share_correct)
        low, high = frame.at(0, estimate.low)[1], frame.at(0, estimate.high)[1]
        radius = 3 + 7 * math.sqrt(bin.count / len(solutions))
        said = f"{bin.low:.1f} to {bin.high:.1f}: {bin.count} solutions, {100 * bin.share_correct:.1f}% correct"
        parts.append(f'<line class="whisker" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
        parts.append(f'<circle class="dot" cx="{x}" cy="{y}" r="{radius:.1f}"><title>{said}</title></circle>')
        rows.append(
            (
                f"{bin.low:.1f} to {bin.high:.1f}",
                f"{bin.mean_score:.3f}",
                show(bin.share_correct, True),
                show_interval(estimate, True),
                f"{bin.count:,}",
            )
        )
    title = "Calibration"
    caption = "How often solutions of a score are correct; on the dashed line scores are honest. Area: how many."
    head = ("score", "mean score", "correct", "95% interval", "solutions")
    return Chart("calibration", title, caption, _picture("calibration", title, parts), head, tuple(rows))


# Hatching for bars of incorrect solutions; the style sheet gives the colours.
_HATCH = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch-back" width="5" height="5"/><rect class="hatch-line" width="2" height="5"/>'
    "</pattern></defs>"
)


def _picture(key: str, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="chart-{key}">'
        f'<title id="chart-{key}">{escape(title)}; the table below has its figures</title>{"".join(parts)}</svg>'
    )


def _rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _symbol(number: int, x: float, y: float, said: str) -> str:
    """Circle, square, triangle, diamond."""
    shapes = (
        "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
        "M-3.5,-3.5h7v7h-7Z",
        "M0,-4.6L4.4,3.4H-4.4Z",
        "M0,-5L5,0L0,5L-5,0Z",
    )
    shape = shapes[number % len(shapes)]
    return f'<path class="symbol" transform="translate({x} {y})" d="{shape}"><title>{escape(said)}</title></path>'


def _apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Labels moved down where they would touch, and back up where that leaves the picture."""
    placed: dict[str, float] = {}
    for name in sorted(heights, key=lambda name: heights[name]):
        placed[name] = max([heights[name], *(y + gap for y in placed.values())])
    over = max([0.0, *(y - (HEIGHT - BOTTOM) for y in placed.values())])
    return {name: y - over for name, y in placed.items()}


def _round_ticks(top: int) -> list[float]:
    """0 and up to five round steps, the last of them at least ``top``."""
    raw = max(top, 1) / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = max(1, next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw))
    return [step * tick for tick in range(math.ceil(max(top, 1) / step) + 1)]
