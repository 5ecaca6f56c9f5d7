"""How a figure grows with the number of labels a verifier was trained on: a curve from evaluations that were run
before, one a training set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.intervals import Estimate, estimate_from_json, estimate_json, show, show_interval
from thinkprm_jax.evaluation.panels import Curve, CurvesPanel
from thinkprm_jax.evaluation.report import EvaluationReport
from thinkprm_jax.records.jsonl import get_field
from thinkprm_jax.tables import TextTable
from thinkprm_jax.user_files import read_json

# Fields of an evaluation's JSON that say what was judged; all evaluations of one curve must agree in them.
_TASK = ("task", "split", "problems", "seed", "source", "subsets", "limit", "balanced", "solutions")


@dataclass(frozen=True)
class LabelPoint:
    """labels: the verifier learnt from; 0: none, an untrained one to compare with. line: which curve it is on."""

    line: str
    labels: int
    source: str
    content: Mapping[str, Any]

    def figure(self, name: str) -> Estimate:
        figures = get_field(self.content, "figures", dict, self.source)
        if name not in figures:
            raise UserError(f"{self.source}: has no figure {name}; it has {', '.join(figures)}")
        try:
            return estimate_from_json(figures[name])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self.source}: figures.{name} is not a figure with value, low, high and n") from None


def parse_point(text: str) -> LabelPoint:
    """`[LINE:]LABELS=FILE.json`, such as `ThinkPRM:1000=runs/1k.json`.

    Raises:
      UserError: it is not, or the file holds no evaluation.
    """
    left, equals, file = text.partition("=")
    line, colon, count = left.rpartition(":")
    count = count.replace(",", "").replace("_", "")
    if not equals or not count.isdecimal() or not file:
        raise UserError(
            f"{text!r}: write [LINE:]LABELS=FILE.json, for example ThinkPRM:1000=runs/thinkprm_1k.json"
        )
    content = read_json(file)
    get_field(content, "task", str, file)
    return LabelPoint(line if colon else "verifier", int(count), file, content)


def check_same_task(points: Sequence[LabelPoint]) -> None:
    """Raises UserError where two evaluations judged different solutions."""
    first = points[0]
    for point in points[1:]:
        for name in _TASK:
            here, there = point.content.get(name), first.content.get(name)
            if here != there:
                raise UserError(
                    f"{point.source}: has {name} {json.dumps(here)}, {first.source} has {json.dumps(there)}; "
                    "evaluations of different solutions make no curve"
                )


def default_figure(points: Sequence[LabelPoint]) -> str:
    return "first_error_f1_average" if points[0].content["task"] == "processbench" else "first_error_f1"


def lines(points: Sequence[LabelPoint]) -> dict[str, list[LabelPoint]]:
    """Line -> its points by number of labels; several evaluations of one number (seeds) side by side."""
    found: dict[str, list[LabelPoint]] = {}
    for point in sorted(points, key=lambda point: point.labels):
        found.setdefault(point.line, []).append(point)
    return found


def label_report(points: Sequence[LabelPoint], figure: str | None = None) -> EvaluationReport:
    """figure: a name under `figures` of the evaluations.

    Raises:
      UserError: an evaluation has no such figure.
    """
    figure = figure or default_figure(points)
    name = f"{figure} by number of labels"
    table, panel = label_table(points, figure), label_panel(points, figure)
    return EvaluationReport(label_json(points, figure), [name], [table], [panel])


def label_table(points: Sequence[LabelPoint], figure: str) -> TextTable:
    table = TextTable.of("line", "labels", figure, "95% interval", "solutions")
    for line, members in lines(points).items():
        for index, point in enumerate(members):
            value = point.figure(figure)
            table.add(
                line if index == 0 else "",
                f"{point.labels:,}",
                show(value.value, False),
                show_interval(value, False),
                f"{value.n:,}",
                ends_section=index == len(members) - 1,
            )
    return table


def label_json(points: Sequence[LabelPoint], figure: str) -> dict[str, Any]:
    return {
        "task": "labels",
        "figure": figure,
        "lines": {
            line: [
                {"labels": point.labels, "source": point.source, **estimate_json(point.figure(figure))}
                for point in members
            ]
            for line, members in lines(points).items()
        },
    }


def label_panel(points: Sequence[LabelPoint], figure: str) -> CurvesPanel:
    """An axis of labels is logarithmic: what has none is a level line across it."""
    trained = sorted({point.labels for point in points if point.labels})
    curves = []
    for line, members in lines(points).items():
        values = [(float(point.labels), point.figure(figure)) for point in members if point.labels]
        if values:
            curves.append(Curve(line, values))
        for point in members:
            if not point.labels and trained:
                level = point.figure(figure)
                ends = [(float(trained[0]), level), (float(trained[-1]), level)]
                curves.append(Curve(f"{line} (no labels)", ends, reference=True))
    solutions = sorted({point.figure(figure).n for point in points})
    title = f"{' / '.join(f'{n:,}' for n in solutions)} solutions, 95% intervals"
    return CurvesPanel(
        curves, x_label="labels trained on (log scale)", y_label=figure, x_scale="log10", title=title
    )
