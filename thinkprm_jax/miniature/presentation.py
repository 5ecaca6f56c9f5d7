"""The paper in miniature for people: tables, panels of its pictures, and its page in Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from thinkprm_jax.evaluation.intervals import Estimate, show, show_interval
from thinkprm_jax.evaluation.panels import Curve, CurvesPanel, Panel, ReliabilityPanel
from thinkprm_jax.evaluation.report import bins_of
from thinkprm_jax.evaluation.selection.accuracy import SCORE_FIGURES, curves_by_n
from thinkprm_jax.evaluation.selection.comparison import accuracy_table, difference_table
from thinkprm_jax.evaluation.sweep import NAMES, by_line, gains_table
from thinkprm_jax.miniature.findings import (
    BEST_OF_N,
    COMPUTE_FIGURES,
    MEASURES,
    TRUTHS,
    Accuracy,
    Compute,
    MiniatureFindings,
)
from thinkprm_jax.miniature.study import TREES
from thinkprm_jax.tables import TextTable

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


def tables(findings: MiniatureFindings, question: str) -> Iterator[tuple[str, TextTable]]:
    """(heading, table) of a question of :data:`QUESTIONS`."""
    if question == "accuracy_by_n":
        for verifier, accuracy in findings.accuracy.items():
            yield f"Accuracy (95% interval), verifier {verifier}", accuracy_table(accuracy.searches)
            gains = difference_table(accuracy.searches)
            if gains is not None:
                yield f"Gain in points over best-of-N, verifier {verifier}, paired", gains
        yield "Gain in points in best-of-N, on the same solutions, paired", _best_of_n_gains(findings)
    elif question == "verifier_compute":
        for verifier, compute in findings.compute.items():
            yield f"Verifier {verifier}", compute_table(compute)
            yield f"Gain, verifier {verifier}, paired", gains_table(compute.gains, MEASURES)
    else:
        yield "Scores of the best-of-N solutions", calibration_table(findings)


def _best_of_n_gains(findings: MiniatureFindings) -> TextTable:
    """Over the majority, and of the first verifier over the others."""
    table = TextTable.of("verifier", "over", "problems", "N", "naive", "weighted", left=2)
    first = next(iter(findings.accuracy))
    blocks = [(name, "majority", accuracy.over_majority) for name, accuracy in findings.accuracy.items()]
    blocks += [(first, f"verifier {name}", by_n) for name, by_n in findings.between.items()]
    for verifier, over, by_n in blocks:
        for index, (n, methods) in enumerate(by_n.items()):
            names = (verifier, over) if index == 0 else ("", "")
            gains = [_points(methods[method]) for method in ("naive", "weighted")]
            table.add(*names, f"{methods['naive'].n:,}", str(n), *gains, ends_section=index == len(by_n) - 1)
    return table


def _points(gain: Estimate) -> str:
    if math.isnan(gain.value):
        return "-"
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def compute_table(compute: Compute) -> TextTable:
    """A setting a row: tokens a verdict, the share that was cut, then each figure with its interval."""
    table = TextTable.of("setting", "solutions", "tokens a verdict", "cut", *COMPUTE_FIGURES.values())
    rows = zip(compute.settings, compute.summaries, compute.cut, strict=True)
    for index, (setting, summary, cut) in enumerate(rows):
        table.add(
            setting.name,
            f"{summary.solutions:,}",
            show(summary.tokens.value, None),
            show(cut.value, True),
            *(_figure(summary.figure(name)) for name in COMPUTE_FIGURES),
            ends_section=index + 1 < len(compute.settings) and compute.settings[index + 1].line != setting.line,
        )
    return table


def _figure(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "-"
    return f"{show(estimate.value, False)} ({show_interval(estimate, False)})"


def calibration_table(findings: MiniatureFindings) -> TextTable:
    table = TextTable.of("figure", "correct means", "verifier", "value", "95% interval", "problems", left=3)
    for (field, (name, percent)), truth in itertools.product(SCORE_FIGURES.items(), TRUTHS):
        for verifier, truths in findings.calibration.items():
            value = truths[truth].figures[field]
            cells = show(value.value, percent), show_interval(value, percent), f"{value.n:,}"
            table.add(name, TRUTHS[truth], verifier, *cells)
    return table


def pictures(findings: MiniatureFindings) -> dict[str, tuple[list[Panel], int]]:
    """Question -> (panels, panels a row)."""
    return {
        "accuracy_by_n": (_accuracy_panels(findings), 3),
        "verifier_compute": (_compute_panels(findings), len(MEASURES)),
        "calibration": (_calibration_panels(findings), len(TRUTHS) + 1),
    }


def _accuracy_panels(findings: MiniatureFindings) -> list[Panel]:
    """A row a verifier: the methods of best-of-N; the searches by N; the searches by tokens."""
    panels: list[Panel] = []
    for verifier, accuracy in findings.accuracy.items():
        problems = f"{len(accuracy.searches[0].run.problems):,} problems, 95% intervals"
        best = accuracy.searches[0].by_n
        majority = Curve("majority", [(n, methods["majority"]) for n, methods in best.items()], reference=True)
        x_label = "solutions a problem (N)"
        panels += [
            CurvesPanel(
                curves_by_n(best),
                x_label=x_label,
                y_label="accuracy",
                title=f"best-of-N, verifier {verifier}\n{problems}",
                percent=True,
            ),
            CurvesPanel(
                [*_search_curves(accuracy), majority],
                x_label=x_label,
                y_label="accuracy, weighted",
                title=f"weighted, guided by {verifier}\n{problems}",
                percent=True,
            ),
            CurvesPanel(
                _search_curves(accuracy, by_tokens=True),
                x_label="tokens a problem, solver and verifier (log scale)",
                y_label="accuracy, weighted",
                x_scale="log10",
                title=f"the same by tokens, {verifier}\n{problems}",
                percent=True,
            ),
        ]
    return panels


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


def _compute_panels(findings: MiniatureFindings) -> list[Panel]:
    """A row a verifier, a panel a figure: the figure by tokens, chains against rounds."""
    panels: list[Panel] = []
    for (verifier, compute), figure in itertools.product(findings.compute.items(), MEASURES):
        curves = [
            Curve(
                NAMES[line],
                [(setting.tokens.value, setting.figure(figure)) for setting in members],
                marks=[str(setting.value) for setting in members],
            )
            for line, members in by_line(compute.settings).items()
        ]
        solutions = len(compute.settings[0].outcomes)
        panels.append(
            CurvesPanel(
                curves,
                x_label="tokens a verdict (log scale); at the points: chains, rounds",
                y_label=figure.axis,
                x_scale="log10",
                title=f"{figure.name}, {verifier}\n{solutions:,} solutions, 95% intervals",
            )
        )
    return panels


def _calibration_panels(findings: MiniatureFindings) -> list[Panel]:
    """The scores of the best-of-N solutions, of one greedy chain each, by both kinds of truth; then what averaging
    over chains makes of the scores of the cases."""
    panels: list[Panel] = [
        ReliabilityPanel(
            {verifier: truths[truth].bins for verifier, truths in findings.calibration.items()},
            title=f"best-of-N, one greedy chain\ncorrect: {TRUTHS[truth]}",
        )
        for truth in TRUTHS
    ]
    averaged = {}
    for verifier, compute in findings.compute.items():
        chains = by_line(compute.settings)["n"]
        for setting in (chains[0], chains[-1]):
            averaged[f"{verifier}, {setting.name}"] = bins_of(setting.outcomes)
    title = f"cases, mean over n chains\ncorrect: {TRUTHS['steps']}"
    return [*panels, ReliabilityPanel(averaged, title=title)]


def page(findings: MiniatureFindings, about: Sequence[str], times: TextTable) -> str:
    """results.md: what was run, then each question with its picture and its tables, then the stages.

    Args:
      about: lines of the head. times: the stages with their commands and what they took.
    """
    parts = ["# The paper in miniature", "\n".join(f"- {line}" for line in about)]
    for question, heading in HEADINGS.items():
        parts += [f"## {heading}", QUESTIONS[question], f"![{heading}]({question}.svg)"]
        for title, table in tables(findings, question):
            parts += [f"{title}:", table.markdown()]
    parts += ["## Stages", times.markdown()]
    return "\n\n".join(parts) + "\n"
