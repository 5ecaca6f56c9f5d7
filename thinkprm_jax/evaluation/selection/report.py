"""Accuracy by N for people (tables, pictures) and for programs (JSON): one search, or several side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from thinkprm_jax.evaluation.estimates import Estimate, estimate_json, show, show_gain, show_interval
from thinkprm_jax.evaluation.metrics import ReliabilityBin, reliability_bins
from thinkprm_jax.evaluation.output import Report, is_fancy
from thinkprm_jax.evaluation.plots import Curve, Draw, draw_curves, draw_reliability
from thinkprm_jax.evaluation.report import bins_json, plain_table
from thinkprm_jax.evaluation.selection.accuracy import (
    METHODS,
    SCORE_FIGURES,
    accuracy_by_n,
    curves_by_n,
    difference_by_n,
    numbers_of,
    pooled_scores,
    score_figures,
    tokens_by_n,
)
from thinkprm_jax.evaluation.selection.runs import Run

ByN = Mapping[int, Mapping[str, Estimate]]


@dataclasses.dataclass(frozen=True)
class RunFigures:
    """differences: against the first run; None for the first run itself and for what it is one curve with."""

    run: Run
    by_n: ByN
    tokens: Mapping[int, tuple[float, float]]
    scores: Mapping[str, Estimate]
    differences: ByN | None


def selection_report(runs: Sequence[Run], method: str = "weighted", resamples: int = 1000) -> Report:
    """method: the one that the curves of several runs show."""
    found = measure(runs, resamples)
    tables: list[Any] = ["accuracy (95% interval)", accuracy_table(found, is_fancy())]
    differences = difference_table(found, is_fancy())
    if differences is not None:
        tables += ["gain in points (95% interval), paired: the same problems", differences]
    if any(run.scores for run in runs):
        tables.append(scores_table(found, is_fancy()))
    lines = [f"{run.name}: {run.source}" + (f", scores from {run.scores}" if run.scores else "") for run in runs]
    return Report(selection_json(found), lines, tables, pictures(found, method))


def measure(runs: Sequence[Run], resamples: int = 1000) -> list[RunFigures]:
    found = []
    for run in runs:
        against = None if run is runs[0] else difference_by_n(run, runs[0], resamples)
        found.append(
            RunFigures(
                run,
                accuracy_by_n(run.problems, numbers_of(run), resamples),
                tokens_by_n(run),
                score_figures(run.problems, resamples),
                against,
            )
        )
    return found


def selection_json(found: Sequence[RunFigures]) -> dict[str, Any]:
    return {
        "task": "selection",
        "methods": METHODS,
        "runs": [
            {
                "name": figures.run.name,
                "source": figures.run.source,
                "problems": len(figures.run.problems),
                "scores_from": figures.run.scores,
                "by_n": _by_n_json(figures.by_n),
                "tokens": {
                    str(n): {"generator": generator, "verifier": verifier}
                    for n, (generator, verifier) in figures.tokens.items()
                },
                "scores": {field: estimate_json(figures.scores[field]) for field in SCORE_FIGURES},
                "reliability": bins_json(_bins(figures.run)),
                "difference_from_first": None if figures.differences is None else _by_n_json(figures.differences),
            }
            for figures in found
        ],
    }


def _by_n_json(by_n: ByN) -> dict[str, Any]:
    return {str(n): {name: estimate_json(value) for name, value in methods.items()} for n, methods in by_n.items()}


def _bins(run: Run) -> list[ReliabilityBin]:
    """[] where the scores are no probabilities."""
    scores, correct = pooled_scores(run.problems)
    if not scores or min(scores) < 0 or max(scores) > 1:
        return []
    return reliability_bins(scores, correct)


def accuracy_table(found: Sequence[RunFigures], fancy: bool) -> Table:
    """A run and an N a row; cells: accuracy (95% interval)."""
    table = plain_table(fancy, "run")
    for heading in ("problems", "N", *METHODS, "tokens a problem"):
        table.add_column(heading, justify="right", no_wrap=True)
    for figures in found:
        for place, (n, methods) in enumerate(figures.by_n.items()):
            cells = [accuracy_cell(methods[method]) for method in METHODS]
            spent = f"{sum(figures.tokens[n]):,.0f}" if n in figures.tokens else "-"
            first = (figures.run.name, f"{len(figures.run.problems):,}") if place == 0 else ("", "")
            last = place == len(figures.by_n) - 1
            table.add_row(*first, str(n), *cells, spent, end_section=last)
    return table


def scores_table(found: Sequence[RunFigures], fancy: bool) -> Table:
    """How well the scores tell right completions from wrong ones."""
    table = plain_table(fancy, "run")
    for heading in ("figure of the scores", "value", "95% interval", "problems"):
        table.add_column(heading, justify="right" if heading != "figure of the scores" else "left", no_wrap=True)
    for figures in found:
        for place, (field, (name, percent)) in enumerate(SCORE_FIGURES.items()):
            value = figures.scores[field]
            table.add_row(
                figures.run.name if place == 0 else "",
                name,
                show(value.value, percent),
                show_interval(value, percent),
                f"{value.n:,}",
                end_section=place == len(SCORE_FIGURES) - 1,
            )
    return table


def difference_table(found: Sequence[RunFigures], fancy: bool) -> Table | None:
    """What runs gain over the first one, in points; None where there is nothing to compare."""
    compared = [figures for figures in found if figures.differences]
    if not compared:
        return None
    table = plain_table(fancy, f"gain over {found[0].run.name}")
    for heading in ("problems", "N", *METHODS):
        table.add_column(heading, justify="right", no_wrap=True)
    for figures in compared:
        for place, (n, methods) in enumerate((figures.differences or {}).items()):
            cells = [show_gain(methods[method], percent=True) for method in METHODS]
            name = figures.run.name if place == 0 else ""
            table.add_row(name, f"{methods['pass'].n:,}", str(n), *cells)
    return table


def accuracy_cell(estimate: Estimate) -> str:
    """Percent (95% interval); "-" where it is undefined."""
    if math.isnan(estimate.value):
        return "-"
    return f"{100 * estimate.value:.1f}% ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def pictures(found: Sequence[RunFigures], method: str) -> list[Draw]:
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
    draws = [draw_curves(curves, x_label="solutions a problem (N)", y_label=what, title=title, percent=True)]
    if all(figures.tokens.keys() == figures.by_n.keys() for figures in found):
        lines = [Curve(name, _points_by_tokens(found, name, method)) for name in names]
        if method != "majority":
            alone = _points_by_tokens(found, names[0], "majority")
            lines.append(Curve(f"majority ({names[0]})", alone, reference=True))
        x_label = "tokens a problem, generator and verifier (log scale)"
        y_label = f"accuracy, {method}"
        draws.append(draw_curves(lines, x_label=x_label, y_label=y_label, x_scale="log10", percent=True))
    bins = {figures.run.name: _bins(figures.run) for figures in found}
    if all(bins.values()):
        draws.append(draw_reliability(bins, title="scores of single solutions"))
    return draws


def _points(found: Sequence[RunFigures], name: str, method: str) -> list[tuple[float, Estimate]]:
    """Of all runs of that name: together they are one curve."""
    runs = [figures for figures in found if figures.run.name == name]
    return sorted(
        ((n, methods[method]) for figures in runs for n, methods in figures.by_n.items()),
        key=lambda point: point[0],
    )


def _points_by_tokens(found: Sequence[RunFigures], name: str, method: str) -> list[tuple[float, Estimate]]:
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
