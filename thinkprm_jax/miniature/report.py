"""The paper in miniature for people: tables (terminal and Markdown), pictures; and its numbers for programs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from thinkprm_jax.evaluation.estimates import Estimate, show, show_interval
from thinkprm_jax.evaluation.measures import estimate
from thinkprm_jax.evaluation.plots import Curve, Draw, draw_curves, draw_reliability, save_figure
from thinkprm_jax.evaluation.report import bins_of, plain_table
from thinkprm_jax.evaluation.selection.accuracy import SCORE_FIGURES, curves_by_n
from thinkprm_jax.evaluation.selection.report import accuracy_table, difference_table
from thinkprm_jax.evaluation.sweep import NAMES, gains_table
from thinkprm_jax.miniature.figures import (
    BEST_OF_N,
    COMPUTE_FIGURES,
    MEASURES,
    TRUTHS,
    Accuracy,
    Compute,
    Findings,
)
from thinkprm_jax.miniature.study import TREES

HEADINGS = {
    "accuracy_by_n": "Accuracy against N",
    "verifier_compute": "Verifier compute",
    "calibration": "Calibration",
}
# What each asks.
QUESTIONS = {
    "accuracy_by_n": "How much do more solutions help, and does it matter whether a verifier chooses among whole "
    "solutions (best-of-N) or guides the search step by step (beam search, DVTS)?",
    "verifier_compute": "Is a verdict better if more tokens are spent on it: on several chains whose scores are "
    "averaged, or on further rounds of thinking in one chain? n = k and k rounds cost about as many tokens.",
    "calibration": "Of the solutions that get the score s, is the share s correct? And how well does the score "
    "rank right solutions above wrong ones? Solutions of one problem are no independent cases: the table's "
    "intervals are over problems; those in the picture, of shares of solutions, are narrower than they should be.",
}


def tables(findings: Findings, question: str, fancy: bool) -> Iterator[tuple[str, Table]]:
    """(heading, table) of a question of :data:`QUESTIONS`."""
    if question == "accuracy_by_n":
        for verifier, accuracy in findings.accuracy.items():
            yield f"Accuracy (95% interval), verifier {verifier}", accuracy_table(accuracy.searches, fancy)
            gains = difference_table(accuracy.searches, fancy)
            if gains is not None:
                yield f"Gain in points over best-of-N, verifier {verifier}, paired", gains
        yield "Gain in points in best-of-N, on the same solutions, paired", _best_of_n_gains(findings, fancy)
    elif question == "verifier_compute":
        for verifier, compute in findings.compute.items():
            yield f"Verifier {verifier}", compute_table(compute, fancy)
            yield f"Gain, verifier {verifier}, paired", gains_table(compute.gains, MEASURES, fancy)
    else:
        yield "Scores of the best-of-N solutions", calibration_table(findings, fancy)


def _best_of_n_gains(findings: Findings, fancy: bool) -> Table:
    """Over the majority, and of the first verifier over the others."""
    table = plain_table(fancy, "verifier")
    for heading in ("over", "problems", "N", "naive", "weighted"):
        table.add_column(heading, justify="left" if heading == "over" else "right", no_wrap=True)
    first = next(iter(findings.accuracy))
    blocks = [(name, "majority", accuracy.over_majority) for name, accuracy in findings.accuracy.items()]
    blocks += [(first, f"verifier {name}", by_n) for name, by_n in findings.between.items()]
    for verifier, over, by_n in blocks:
        for place, (n, methods) in enumerate(by_n.items()):
            names = (verifier, over) if place == 0 else ("", "")
            gains = [_points(methods[method]) for method in ("naive", "weighted")]
            last = place == len(by_n) - 1
            table.add_row(*names, f"{methods['naive'].n:,}", str(n), *gains, end_section=last)
    return table


def _points(gain: Estimate) -> str:
    if math.isnan(gain.value):
        return "-"
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def compute_table(compute: Compute, fancy: bool) -> Table:
    """A setting a row: tokens a verdict, the share that was cut, then each figure with its interval."""
    table = plain_table(fancy, "setting")
    for heading in ("solutions", "tokens a verdict", "cut", *COMPUTE_FIGURES.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = zip(compute.settings, compute.summaries, compute.cut, strict=True)
    for place, (setting, summary, cut) in enumerate(rows):
        figures = [getattr(summary, name) for name in COMPUTE_FIGURES]
        ends = place + 1 < len(compute.settings) and compute.settings[place + 1].line != setting.line
        table.add_row(
            setting.name,
            f"{summary.solutions:,}",
            show(summary.tokens.value, None),
            show(cut.value, True),
            *map(_figure, figures),
            end_section=ends,
        )
    return table


def _figure(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "-"
    return f"{show(estimate.value, False)} ({show_interval(estimate, False)})"


def calibration_table(findings: Findings, fancy: bool) -> Table:
    table = plain_table(fancy, "figure")
    for heading in ("correct means", "verifier", "value", "95% interval", "problems"):
        justify = "left" if heading in ("correct means", "verifier") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for (field, (name, percent)), truth in itertools.product(SCORE_FIGURES.items(), TRUTHS):
        for verifier, truths in findings.calibration.items():
            value = truths[truth].figures[field]
            cells = show(value.value, percent), show_interval(value, percent), f"{value.n:,}"
            table.add_row(name, TRUTHS[truth], verifier, *cells)
    return table


def save_pictures(findings: Findings, folder: Path) -> list[Path]:
    """NAME.png and NAME.svg of every question."""
    draws = {
        "accuracy_by_n": (_accuracy_panels(findings), 3),
        "verifier_compute": (_compute_panels(findings), len(MEASURES)),
        "calibration": (_calibration_panels(findings), len(TRUTHS) + 1),
    }
    return [
        path
        for name, (panels, columns) in draws.items()
        for path in save_figure(folder / name, panels, columns=columns)
    ]


def _accuracy_panels(findings: Findings) -> list[Draw]:
    """A row a verifier: the methods of best-of-N; the searches by N; the searches by tokens."""
    draws = []
    for verifier, accuracy in findings.accuracy.items():
        problems = f"{len(accuracy.searches[0].run.problems):,} problems, 95% intervals"
        methods = curves_by_n(dict(accuracy.searches[0].by_n))
        x_label = "solutions a problem (N)"
        title = f"best-of-N, verifier {verifier}\n{problems}"
        draws.append(draw_curves(methods, x_label=x_label, y_label="accuracy", title=title, percent=True))
        title = f"weighted, guided by {verifier}\n{problems}"
        best = accuracy.searches[0].by_n
        curves = [
            *_search_curves(accuracy),
            Curve("majority", [(n, methods["majority"]) for n, methods in best.items()], reference=True),
        ]
        draws.append(draw_curves(curves, x_label=x_label, y_label="accuracy, weighted", title=title, percent=True))
        draws.append(
            draw_curves(
                _search_curves(accuracy, by_tokens=True),
                x_label="tokens a problem, solver and verifier (log scale)",
                y_label="accuracy, weighted",
                x_scale="log10",
                title=f"the same by tokens, {verifier}\n{problems}",
                percent=True,
            )
        )
    return draws


def _search_curves(accuracy: Accuracy, by_tokens: bool = False) -> list[Curve]:
    """Best-of-N, beam search and DVTS, by N or by what they cost."""
    curves = []
    for name in (BEST_OF_N, *TREES.values()):
        points = [
            (sum(found.tokens.get(n, (math.nan,))) if by_tokens else n, methods["weighted"])
            for found in accuracy.searches
            if found.run.name == name
            for n, methods in found.by_n.items()
        ]
        known = sorted((point for point in points if not math.isnan(point[0])), key=lambda point: point[0])
        curves.append(Curve(name, known))
    return curves


def _compute_panels(findings: Findings) -> list[Draw]:
    """A row a verifier, a panel a measure: the figure by tokens, chains against rounds."""
    draws = []
    for (verifier, compute), measure in itertools.product(findings.compute.items(), MEASURES):
        curves = []
        for line in dict.fromkeys(setting.line for setting in compute.settings):
            members = [setting for setting in compute.settings if setting.line == line]
            points = [(setting.tokens.value, estimate(measure, setting.outcomes)) for setting in members]
            curves.append(Curve(NAMES[line], points, marks=[str(setting.value) for setting in members]))
        title = f"{measure.name}, {verifier}\n{len(compute.settings[0].outcomes):,} solutions, 95% intervals"
        x_label = "tokens a verdict (log scale); at the points: chains, rounds"
        draws.append(draw_curves(curves, x_label=x_label, y_label=measure.axis, x_scale="log10", title=title))
    return draws


def _calibration_panels(findings: Findings) -> list[Draw]:
    """The scores of the best-of-N solutions, of one greedy chain each, by both kinds of truth; then what averaging
    over chains makes of the scores of the cases."""
    draws = [
        draw_reliability(
            {verifier: truths[truth].bins for verifier, truths in findings.calibration.items()},
            title=f"best-of-N, one greedy chain\ncorrect: {TRUTHS[truth]}",
        )
        for truth in TRUTHS
    ]
    averaged = {}
    for verifier, compute in findings.compute.items():
        chains = [setting for setting in compute.settings if setting.line == "n"]
        averaged |= {
            f"{verifier}, {setting.name}": bins_of(setting.outcomes) for setting in (chains[0], chains[-1])
        }
    title = f"cases, mean over n chains\ncorrect: {TRUTHS['steps']}"
    return [*draws, draw_reliability(averaged, title=title)]


def markdown(table: Table) -> str:
    """The same rows as a table of Markdown."""
    heads = [str(column.header) for column in table.columns]
    marks = ["---:" if column.justify == "right" else "---" for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (heads, marks, *rows))


def page(findings: Findings, about: Sequence[str], times: Table) -> str:
    """results.md: what was run, then each question with its picture and its tables, then the stages.

    Args:
      about: lines of the head. times: the stages with their commands and what they took.
    """
    parts = ["# The paper in miniature", "\n".join(f"- {line}" for line in about)]
    for question, heading in HEADINGS.items():
        parts += [f"## {heading}", QUESTIONS[question], f"![{heading}]({question}.svg)"]
        for title, table in tables(findings, question, fancy=False):
            parts += [f"{title}:", markdown(table)]
    parts += ["## Stages", markdown(times)]
    return "\n\n".join(parts) + "\n"
