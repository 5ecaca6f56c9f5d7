"""Accuracy by N of one search, or of several side by side: as JSON, as tables and as panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.evaluation.intervals import Estimate, estimate_json, show, show_gain, show_interval
from thinkprm_jax.evaluation.metrics import ReliabilityBin, reliability_bins
from thinkprm_jax.evaluation.panels import Curve, CurvesPanel, Panel, ReliabilityPanel
from thinkprm_jax.evaluation.report import EvaluationReport, bins_json
from thinkprm_jax.evaluation.selection.accuracy import (
    METHODS,
    SCORE_FIGURES,
    accuracy_by_n,
    curves_by_n,
    difference_by_n,
    method_name,
    numbers_of,
    pooled_scores,
    score_figures,
    tokens_by_n,
)
from thinkprm_jax.evaluation.selection.runs import SelectionRun
from thinkprm_jax.tables import TextTable

ByN = Mapping[int, Mapping[str, Estimate]]


@dataclass(frozen=True)
class SelectionFigures:
    """What is known of one run. differences: against the first run; None for that run itself."""

    run: SelectionRun
    by_n: ByN
    tokens: Mapping[int, tuple[float, float]]
    scores: Mapping[str, Estimate]
    differences: ByN | None


def selection_report(
    runs: Sequence[SelectionRun], method: str = "weighted", resamples: int = 1000
) -> EvaluationReport:
    """method: the one that the curves of several runs show."""
    found = selection_figures(runs, resamples)
    tables: list[str | TextTable] = ["accuracy (95% interval)", accuracy_table(found)]
    differences = difference_table(found)
    if differences is not None:
        tables += ["gain in points (95% interval), paired: the same problems", differences]
    if any(run.scores for run in runs):
        tables.append(scores_table(found))
    lines = [f"{run.name}: {run.source}" + (f", scores from {run.scores}" if run.scores else "") for run in runs]
    return EvaluationReport(selection_json(found), lines, tables, selection_panels(found, method))


def selection_figures(runs: Sequence[SelectionRun], resamples: int = 1000) -> list[SelectionFigures]:
    """Of every run; the first is what the others are compared with."""
    return [
        SelectionFigures(
            run,
            accuracy_by_n(run.problems, numbers_of(run), resamples),
            tokens_by_n(run),
            score_figures(run.problems, resamples),
            None if run is runs[0] else difference_by_n(run, runs[0], resamples),
        )
        for run in runs
    ]


def selection_json(found: Sequence[SelectionFigures]) -> dict[str, Any]:
    return {
        "task": "selection",
        "methods": METHODS,
        "runs": [
            {
                "name": figures.run.name,
                "source": figures.run.source,
                "problems": len(figures.run.problems),
                "scores_from": figures.run.scores,
                "by_n": by_n_json(figures.by_n),
                "tokens": {
                    str(n): {"generator": generator, "verifier": verifier}
                    for n, (generator, verifier) in figures.tokens.items()
                },
                "scores": {field: estimate_json(figures.scores[field]) for field in SCORE_FIGURES},
                "reliability": bins_json(_bins(figures.run)),
                "difference_from_first": None if figures.differences is None else by_n_json(figures.differences),
            }
            for figures in found
        ],
    }


def by_n_json(by_n: ByN) -> dict[str, Any]:
    """N -> method -> figure."""
    return {str(n): {name: estimate_json(value) for name, value in methods.items()} for n, methods in by_n.items()}


def _bins(run: SelectionRun) -> list[ReliabilityBin]:
    """[] where the scores are no probabilities."""
    scores, correct = pooled_scores(run.problems)
    if not scores or min(scores) < 0 or max(scores) > 1:
        return []
    return reliability_bins(scores, correct)


def accuracy_table(found: Sequence[SelectionFigures]) -> TextTable:
    """A run and an N a row; cells: accuracy (95% interval)."""
    table = TextTable.of("run", "problems", "N", *map(method_name, METHODS), "tokens a problem")
    for figures in found:
        for index, (n, methods) in enumerate(figures.by_n.items()):
            cells = [accuracy_cell(methods[method]) for method in METHODS]
            spent = f"{sum(figures.tokens[n]):,.0f}" if n in figures.tokens else "-"
            first = (figures.run.name, f"{len(figures.run.problems):,}") if index == 0 else ("", "")
            table.add(*first, str(n), *cells, spent, ends_section=index == len(figures.by_n) - 1)
    return table


def scores_table(found: Sequence[SelectionFigures]) -> TextTable:
    """How well the scores tell right completions from wrong ones."""
    table = TextTable.of("run", "figure of the scores", "value", "95% interval", "problems", left=2)
    for figures in found:
        for index, (field, (name, percent)) in enumerate(SCORE_FIGURES.items()):
            value = figures.scores[field]
            table.add(
                figures.run.name if index == 0 else "",
                name,
                show(value.value, percent),
                show_interval(value, percent),
                f"{value.n:,}",
                ends_section=index == len(SCORE_FIGURES) - 1,
            )
    return table


def difference_table(found: Sequence[SelectionFigures]) -> TextTable | None:
    """What runs gain over the first one, in points; None where there is nothing to compare."""
    compared = [figures for figures in found if figures.differences]
    if not compared:
        return None
    table = TextTable.of(f"gain over {found[0].run.name}", "problems", "N", *map(method_name, METHODS))
    for figures in compared:
        for index, (n, methods) in enumerate((figures.differences or {}).items()):
            cells = [show_gain(methods[method], percent=True) for method in METHODS]
            name = figures.run.name if index == 0 else ""
            table.add(name, f"{methods['pass'].n:,}", str(n), *cells)
    return table


def accuracy_cell(estimate: Estimate) -> str:
    """Percent (95% interval); "-" where it is undefined."""
    if math.isnan(estimate.value):
        return "-"
    return f"{100 * estimate.value:.1f}% ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def selection_panels(found: Sequence[SelectionFigures], method: str) -> list[Panel]:
    """Accuracy by N; by tokens, where all runs counted them; reliability, where the scores are probabilities.

    method: the one shown of several runs; of a single run all are.
    """
    names = list(dict.fromkeys(figures.run.name for figures in found))
    problems = sorted({len(figures.run.problems) for figures in found})
    title = f"{' / '.join(f'{n:,}' for n in problems)} problems, 95% intervals"
    if len(found) == 1:
        curves = curves_by_n(dict(found[0].by_n))
        what = "accuracy"
    else:
        curves = [
            *(Curve(name, _points(found, name, method)) for name in names),
            Curve(f"majority ({names[0]})", _points(found, names[0], "majority"), reference=True),
            Curve(f"pass@N ({names[0]})", _points(found, names[0], "pass"), reference=True),
        ]
        what = f"accuracy, {method}"
    panels: list[Panel] = [
        CurvesPanel(curves, x_label="solutions a problem (N)", y_label=what, title=title, percent=True)
    ]
    if all(figures.tokens.keys() == figures.by_n.keys() for figures in found):
        lines = [Curve(name, _points_by_tokens(found, name, method)) for name in names]
        if method != "majority":
            alone = _points_by_tokens(found, names[0], "majority")
            lines.append(Curve(f"majority ({names[0]})", alone, reference=True))
        x_label = "tokens a problem, generator and verifier (log scale)"
        y_label = f"accuracy, {method}"
        panels.append(CurvesPanel(lines, x_label=x_label, y_label=y_label, x_scale="log10", percent=True))
    bins = {figures.run.name: _bins(figures.run) for figures in found}
    if all(bins.values()):
        panels.append(ReliabilityPanel(bins, title="scores of single solutions"))
    return panels


def _points(found: Sequence[SelectionFigures], name: str, method: str) -> list[tuple[float, Estimate]]:
    """Of all runs of that name: together they are one curve."""
    runs = [figures for figures in found if figures.run.name == name]
    return sorted(
        ((n, methods[method]) for figures in runs for n, methods in figures.by_n.items()),
        key=lambda point: point[0],
    )


def _points_by_tokens(found: Sequence[SelectionFigures], name: str, method: str) -> list[tuple[float, Estimate]]:
    """Majority needs no verifier, so its tokens are the generator's alone."""
    points = []
    for figures in found:
        if figures.run.name == name:
            for n, methods in figures.by_n.items():
                generator, verifier = figures.tokens[n]
                points.append(
                    (generator if method in ("majority", "pass") else generator + verifier, methods[method])
                )
    return sorted(points, key=lambda point: point[0])
