"""The geometry of a page's plots; charts.html makes SVG of it, coloured by the page's style sheet.

Marks never differ by colour alone: shapes, dashes or hatching tell them apart. Every plot comes with its table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thinkprm_jax.evaluation.intervals import Estimate, share_estimate, show, show_interval
from thinkprm_jax.evaluation.metrics import reliability_bins
from thinkprm_jax.report.run import ReportSolution
from thinkprm_jax.tables import TextTable

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 40
BINS = 20
UNIT = {0.0: "0", 0.25: ".25", 0.5: ".5", 0.75: ".75", 1.0: "1"}
PERCENT = {0.0: "0%", 0.25: "25%", 0.5: "50%", 0.75: "75%", 1.0: "100%"}
# Circle, square, triangle, diamond.
SYMBOLS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
    "M-3.5,-3.5h7v7h-7Z",
    "M0,-4.6L4.4,3.4H-4.4Z",
    "M0,-5L5,0L0,5L-5,0Z",
)
Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """at: x or y on the picture."""

    at: float
    text: str


@dataclass(frozen=True)
class ChartAxes:
    """left, right, top, bottom: of the area that is drawn in."""

    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_name: str
    y_name: str
    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True)
class Whisker:
    """A 95% interval; low and high: y on the picture."""

    x: float
    low: float
    high: float


@dataclass(frozen=True)
class SeriesPoint:
    x: float
    y: float
    says: str
    whisker: Whisker | None


@dataclass(frozen=True)
class ChartSeries:
    """A line through points, with its name at its end. path: of a polyline. symbol: path of a point's mark."""

    name: str
    path: str
    symbol: str
    points: Sequence[SeriesPoint]
    label_x: float
    label_y: float


@dataclass(frozen=True)
class ChartBar:
    """kind: its class: `catch` is the ground of a bin, which can be clicked."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class ChartBin:
    """low, high: the scores in it."""

    low: float
    high: float
    says: str
    bars: Sequence[ChartBar]


@dataclass(frozen=True)
class ChartDot:
    x: float
    y: float
    radius: float
    says: str
    whisker: Whisker


@dataclass(frozen=True)
class Chart:
    """A plot and its data as a table. diagonal: ends of the line on which scores are honest."""

    key: str
    title: str
    caption: str
    table: TextTable
    axes: ChartAxes
    series: Sequence[ChartSeries] = ()
    bins: Sequence[ChartBin] = ()
    dots: Sequence[ChartDot] = ()
    diagonal: tuple[Point, Point] | None = None
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class ChartFrame:
    """Data coordinates to those of the picture. x, y: (low, high). right: room beside the area."""

    x: Point
    y: Point
    right: int = RIGHT

    def at(self, x: float, y: float) -> Point:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        width, height = WIDTH - LEFT - self.right, HEIGHT - TOP - BOTTOM
        return round(LEFT + across * width, 1), round(TOP + (1 - up) * height, 1)

    def axes(
        self, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str], x_name: str, y_name: str
    ) -> ChartAxes:
        return ChartAxes(
            [Tick(self.at(value, self.y[0])[0], text) for value, text in x_ticks.items()],
            [Tick(self.at(self.x[0], value)[1], text) for value, text in y_ticks.items()],
            x_name,
            y_name,
            LEFT,
            WIDTH - self.right,
            TOP,
            HEIGHT - BOTTOM,
        )

    def whisker(self, x: float, estimate: Estimate) -> Whisker:
        return Whisker(x, self.at(0, estimate.low)[1], self.at(0, estimate.high)[1])


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
    drawn = {method: points for method, points in curves.items() if points}
    ns = sorted({n for points in drawn.values() for n in points})
    frame = ChartFrame((math.log2(ns[0]), math.log2(ns[-1])), (0, 1), right=82)
    ends = {
        method: frame.at(math.log2(max(points)), points[max(points)].value) for method, points in drawn.items()
    }
    heights = _apart({method: y for method, (_, y) in ends.items()}, 14)
    series = [
        _series(frame, number, method, points, (ends[method][0] + 9, heights[method] + 4))
        for number, (method, points) in enumerate(drawn.items())
    ]
    table = TextTable.of("selection", "N", "accuracy", "95% interval", "problems")
    for method, points in drawn.items():
        for n, estimate in points.items():
            cells = show(estimate.value, True), show_interval(estimate, True), f"{estimate.n:,}"
            table.add(method, str(n), *cells)
    ticks = {math.log2(n): str(n) for n in ns}
    return Chart(
        "accuracy",
        "Accuracy by N",
        "Share of problems whose selected answer is right; whiskers: 95%.",
        table,
        frame.axes(ticks, PERCENT, "solutions a problem (N)", "accuracy"),
        series=series,
    )


def _series(
    frame: ChartFrame, number: int, method: str, points: Mapping[int, Estimate], label: Point
) -> ChartSeries:
    found = []
    for n, estimate in points.items():
        x, y = frame.at(math.log2(n), estimate.value)
        aside = x + 3 * (number - 1.5)  # side by side, so that whiskers do not hide each other
        whisker = None if math.isnan(estimate.low) else frame.whisker(aside, estimate)
        found.append(SeriesPoint(x, y, f"{method}@{n}: {show(estimate.value, True)}", whisker))
    path = " ".join(f"{point.x},{point.y}" for point in found)
    return ChartSeries(method, path, SYMBOLS[number % len(SYMBOLS)], found, *label)


def histogram(solutions: Sequence[ReportSolution]) -> Chart:
    """Scores of correct and of incorrect solutions, side by side in each bin."""
    names: dict[bool | None, str] = {True: "correct", False: "incorrect"}
    if solutions[0].correct is None:
        names = {None: "solutions"}
    counts = {truth: [0] * BINS for truth in names}
    for solution in solutions:
        assert solution.verdict_score is not None
        counts[solution.correct][min(int(solution.verdict_score * BINS), BINS - 1)] += 1
    ticks = _round_ticks(max(max(column) for column in counts.values()))
    frame = ChartFrame((0, 1), (0, max(ticks)))
    table = TextTable.of("score", *names.values())
    bins = []
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        span = f"{low:.2f} to {high:.2f}"
        found = {truth: column[number] for truth, column in counts.items()}
        said = ", ".join(f"{found[truth]:,} {name}" for truth, name in names.items())
        bins.append(ChartBin(low, high, f"{span}: {said}", _bars(frame, low, high, found)))
        table.add(span, *(f"{count:,}" for count in found.values()))
    legend = "" if None in names else " Plain: correct solutions; hatched: incorrect ones."
    return Chart(
        "scores",
        "Scores of the verdicts",
        f"How many solutions got which score.{legend}",
        table,
        frame.axes(UNIT, {tick: f"{tick:,.0f}" for tick in ticks}, "P(correct)", "solutions"),
        bins=bins,
    )


def _bars(frame: ChartFrame, low: float, high: float, counts: Mapping[bool | None, int]) -> list[ChartBar]:
    """The bars of a bin, side by side, and the ground they stand on."""
    (left, floor), (right, _) = frame.at(low, 0), frame.at(high, 0)
    wide = (right - left - 2) / len(counts)
    bars = [_bar("catch", left, TOP, right - left, floor - TOP)]
    for side, (truth, count) in enumerate(counts.items()):
        if count:
            y = min(frame.at(0, count)[1], floor - 2)  # at least 2 high: one solution among a thousand is seen
            kind = {True: "good", False: "bad", None: "plain"}[truth]
            bars.append(_bar(f"bar {kind}", left + 1 + side * wide, y, wide, floor - y))
    return bars


def _bar(kind: str, x: float, y: float, width: float, height: float) -> ChartBar:
    return ChartBar(kind, *(round(number, 1) for number in (x, y, width, height)))


def reliability_chart(solutions: Sequence[ReportSolution]) -> Chart:
    """For each tenth of the scores, how often the solutions are correct."""
    scores = [solution.verdict_score for solution in solutions if solution.verdict_score is not None]
    bins = [bin for bin in reliability_bins(scores, [bool(s.correct) for s in solutions]) if bin.count]
    frame = ChartFrame((-0.03, 1.03), (-0.05, 1.05))  # room for the dots at the corners, where most of them are
    table = TextTable.of("score", "mean score", "correct", "95% interval", "solutions")
    dots = []
    for bin in bins:
        estimate = share_estimate(round(bin.share_correct * bin.count), bin.count)
        span = f"{bin.low:.1f} to {bin.high:.1f}"
        x, y = frame.at(bin.mean_score, bin.share_correct)
        radius = round(3 + 7 * math.sqrt(bin.count / len(solutions)), 1)
        said = f"{span}: {bin.count} solutions, {100 * bin.share_correct:.1f}% correct"
        dots.append(ChartDot(x, y, radius, said, frame.whisker(x, estimate)))
        share = show(bin.share_correct, True), show_interval(estimate, True)
        table.add(span, f"{bin.mean_score:.3f}", *share, f"{bin.count:,}")
    return Chart(
        "calibration",
        "Calibration",
        "How often solutions of a score are correct; on the dashed line scores are honest. Area: how many.",
        table,
        frame.axes(UNIT, PERCENT, "mean P(correct)", "correct"),
        dots=dots,
        diagonal=(frame.at(0, 0), frame.at(1, 1)),
    )


def _apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Labels moved down where they would touch, and back up where that leaves the picture."""
    moved: dict[str, float] = {}
    for name in sorted(heights, key=lambda name: heights[name]):
        moved[name] = max([heights[name], *(y + gap for y in moved.values())])
    over = max([0.0, *(y - (HEIGHT - BOTTOM) for y in moved.values())])
    return {name: y - over for name, y in moved.items()}


def _round_ticks(top: int) -> list[float]:
    """0 and up to five round steps, the last of them at least ``top``."""
    raw = max(top, 1) / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = max(1, next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw))
    return [step * tick for tick in range(math.ceil(max(top, 1) / step) + 1)]
