"""The figures at the head of a page: those of the programs where these have written them, else counted here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation import metrics
from thinkprm_jax.evaluation.intervals import (
    Estimate,
    bootstrap_estimate,
    estimate_from_json,
    share_estimate,
    show,
    show_interval,
)
from thinkprm_jax.evaluation.report import FIGURES
from thinkprm_jax.evaluation.summary import summarise
from thinkprm_jax.report.run import ReportRun, ReportSolution

METHODS = ("naive", "weighted", "majority", "pass")


@dataclass(frozen=True)
class ReportFigure:
    """One figure. percent: shown as a percentage, as a plain number below 1, or (None) as a quantity."""

    name: str
    estimate: Estimate
    percent: bool | None = True

    @property
    def cells(self) -> tuple[str, str, str]:
        """Value, interval and number of cases, as text."""
        return (
            show(self.estimate.value, self.percent),
            show_interval(self.estimate, self.percent),
            f"{self.estimate.n:,}",
        )


def overview(run: ReportRun) -> list[ReportFigure]:
    """What is known of the run, the most telling first; figures without a case behind them are left out."""
    if run.kind == "evaluation":
        figures = evaluation_figures(run)
    else:
        figures = [*search_figures(run), *verdict_figures(solutions_of(run))]
    return [figure for figure in figures if figure.estimate.n and not math.isnan(figure.estimate.value)]


def evaluation_figures(run: ReportRun) -> list[ReportFigure]:
    """As `thinkprm evaluate` prints them, from the outcomes that it recorded."""
    summary = summarise(run.outcomes)
    return [
        ReportFigure(name.strip(), summary.figure(field), percent) for field, (name, _, percent) in FIGURES.items()
    ]


def search_figures(run: ReportRun) -> list[ReportFigure]:
    """Accuracy of each selection at the largest N."""
    figures = []
    for method, points in accuracy_curves(run).items():
        if points:
            name = f"{method}@{max(points)}"
            figures.append(ReportFigure(name if method == "pass" else f"accuracy, {name}", points[max(points)]))
    return figures


def accuracy_curves(run: ReportRun) -> dict[str, dict[int, Estimate]]:
    """Selection -> N -> accuracy: of accuracy.json; where that is missing, of the completions so far.

    Raises:
      UserError: accuracy.json has another form.
    """
    if run.kind != "search":
        return {}
    curves = _counted_curves(run) if run.accuracy is None else _recorded_curves(run)
    return {
        method: {n: estimate for n, estimate in points.items() if not math.isnan(estimate.value)}
        for method, points in curves.items()
    }


def _recorded_curves(run: ReportRun) -> dict[str, dict[int, Estimate]]:
    assert run.accuracy is not None
    by_n = run.accuracy.get("by_n")
    where = f"{run.source}/accuracy.json"
    if not isinstance(by_n, dict) or not all(_is_count(n) and isinstance(by_n[n], dict) for n in by_n):
        raise UserError(f"{where}: the field `by_n` must be an object from numbers to objects")
    curves: dict[str, dict[int, Estimate]] = {}
    for method in METHODS:
        points = {int(n): by_n[n][method] for n in sorted(by_n, key=int) if by_n[n].get(method) is not None}
        curves[method] = {n: _estimate(point, f"{where}: `by_n.{n}.{method}`") for n, point in points.items()}
    return curves


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _estimate(point: Any, where: str) -> Estimate:
    try:
        estimate = estimate_from_json(point)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{where} must be an object with the numbers value, low, high and n") from None
    if any(share < 0 or share > 1 for share in (estimate.value, estimate.low, estimate.high)):
        raise UserError(f"{where} must hold shares in [0, 1]")
    return estimate


def _counted_curves(run: ReportRun) -> dict[str, dict[int, Estimate]]:
    """As the search itself counts at its end."""
    from thinkprm_jax.evaluation.selection.accuracy import accuracy_by_n
    from thinkprm_jax.evaluation.selection.runs import WHOLE_SEARCHES, SearchedProblem

    searched = [
        SearchedProblem(
            problem.text,
            tuple(solution.answer for solution in problem.solutions),
            tuple(solution.score for solution in problem.solutions),
            tuple(bool(solution.correct) for solution in problem.solutions),
        )
        for problem in run.problems
        if all(solution.correct is not None for solution in problem.solutions)
    ]
    largest = max((len(problem.answers) for problem in searched), default=0)
    if not largest:
        return {}
    found = accuracy_by_n(searched, [largest] if run.settings.get("approach") in WHOLE_SEARCHES else None)
    return {method: {n: found[n][method] for n in found} for method in METHODS}


def verdict_figures(solutions: Sequence[ReportSolution]) -> list[ReportFigure]:
    """Of verdicts, with or without the truth."""
    judged = [solution for solution in solutions if solution.judged]
    scores = [solution.verdict_score for solution in judged if solution.verdict_score is not None]
    known = [solution for solution in judged if solution.correct is not None]
    located = [solution for solution in judged if solution.truth is not None]
    chains = [chain for solution in solutions for chain in solution.chains]
    several = [solution for solution in judged if len(solution.chains) > 1]
    tokens = [sum(chain.tokens or 0 for chain in solution.chains) for solution in judged if solution.chains]
    figures = [
        ReportFigure("solutions judged", share([solution.judged for solution in solutions])),
        ReportFigure("verdicts right", share([not solution.wrong for solution in known])),
        *_located_figures(located),
        *_score_figures(known),
        ReportFigure("judged correct (score ≥ ½)", share([score >= 0.5 for score in scores])),
        ReportFigure("chains of a solution disagree", share([solution.disputed for solution in several])),
        ReportFigure("readable chains", share([chain.readable for chain in chains])),
        ReportFigure(
            "score and labels disagree", share([chain.contradictory for chain in chains if chain.labels])
        ),
    ]
    if tokens:
        figures.append(ReportFigure("tokens per verdict", resampled(np.mean, np.array(tokens)), None))
    return figures


def _located_figures(solutions: Sequence[ReportSolution]) -> list[ReportFigure]:
    found = np.array([solution.predicted == solution.truth for solution in solutions], bool)
    has_error = np.array([solution.truth != -1 for solution in solutions], bool)
    return [
        ReportFigure("first error found, solutions with one", share(found[has_error])),
        ReportFigure("no error found, correct solutions", share(found[~has_error])),
    ]


def _score_figures(solutions: Sequence[ReportSolution]) -> list[ReportFigure]:
    table = np.array([(solution.verdict_score, solution.correct) for solution in solutions], float).reshape(-1, 2)
    return [
        ReportFigure("AUROC of the score", resampled(lambda t: metrics.auroc(t[:, 0], t[:, 1] > 0), table), False),
        ReportFigure(
            "expected calibration error",
            resampled(lambda t: metrics.expected_calibration_error(t[:, 0], t[:, 1] > 0), table),
            False,
        ),
    ]


def agreement(solutions: Iterable[ReportSolution]) -> dict[tuple[int, int], Estimate]:
    """(chains that agree, of how many) -> share of right verdicts, the most agreement first."""
    groups: dict[tuple[int, int], list[bool]] = {}
    for solution in solutions:
        if solution.judged and len(solution.chains) > 1 and solution.correct is not None:
            groups.setdefault((solution.agreeing, len(solution.chains)), []).append(not solution.wrong)
    return {key: share(groups[key]) for key in sorted(groups, key=lambda pair: (-pair[0] / pair[1], pair[1]))}


def by_group(run: ReportRun) -> dict[str, dict[str, Estimate]]:
    """Breakdown -> group -> share of right verdicts."""
    groups: dict[str, dict[str, list[bool]]] = {}
    for problem in run.problems:
        for solution in problem.solutions:
            if solution.judged and solution.correct is not None:
                for name, group in problem.groups.items():
                    groups.setdefault(name, {}).setdefault(group, []).append(not solution.wrong)
    return {name: {group: share(found[group]) for group in sorted(found)} for name, found in groups.items()}


def solutions_of(run: ReportRun) -> list[ReportSolution]:
    return [solution for problem in run.problems for solution in problem.solutions]


def share(flags: Sequence[bool] | np.ndarray) -> Estimate:
    """Of True."""
    return share_estimate(int(np.sum(flags)), len(flags))


def resampled(statistic: Callable[[np.ndarray], Any], table: np.ndarray) -> Estimate:
    """A statistic of the rows of ``table``."""
    return bootstrap_estimate(lambda rows: float(statistic(table[rows])), len(table))
