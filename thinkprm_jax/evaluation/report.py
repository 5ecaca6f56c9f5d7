"""Summaries for people (tables) and for programs (JSON)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from thinkprm_jax.evaluation.estimates import Estimate, estimate_json, null_for_nan, show, show_interval
from thinkprm_jax.evaluation.metrics import ReliabilityBin, reliability_bins
from thinkprm_jax.evaluation.outcomes import Outcome
from thinkprm_jax.evaluation.output import Report, is_fancy
from thinkprm_jax.evaluation.plots import draw_reliability
from thinkprm_jax.evaluation.running import Judged, Task, heading
from thinkprm_jax.evaluation.summary import Summary, break_down, summarise

# Field of Summary -> (its name in full, its name at the head of a column, shown as a percentage; None: a quantity)
FIGURES = {
    "readable_chains": ("readable chains", "readable", True),
    "step_accuracy": ("step verdicts right", "steps", True),
    "first_error_f1": ("first-error F1", "F1", False),
    "acc_error": ("  accuracy, solutions with an error", "error", True),
    "acc_correct": ("  accuracy, correct solutions", "correct", True),
    "first_error_f1_by_score": ("first-error F1 by step scores", "F1 by score", False),
    "binary_f1": ("binary F1 (positive = correct)", "binary F1", False),
    "auroc": ("AUROC of the score", "AUROC", False),
    "calibration_error": ("expected calibration error", "ECE", False),
    "brier": ("Brier score", "Brier", False),
    "point_biserial": ("point-biserial correlation", "point-biserial", False),
    "spearman": ("Spearman's correlation", "Spearman", False),
    "tokens": ("tokens per verdict", "tokens", None),
}
_NOT_BROKEN_DOWN = ("first_error_f1_by_score", "brier", "point_biserial", "spearman")  # JSON has them
_COLUMNS = {field: form for field, form in FIGURES.items() if field not in _NOT_BROKEN_DOWN}


def figures_table(summary: Summary, fancy: bool) -> Table:
    """One figure a row, with its interval and how many solutions it is of."""
    rows = [(name, getattr(summary, field), percent) for field, (name, _, percent) in FIGURES.items()]
    return estimates_table("figure", rows, "solutions", fancy)


def estimates_table(
    heading: str, rows: Sequence[tuple[str, Estimate, bool | None]], cases: str, fancy: bool
) -> Table:
    """(name, figure, how to show it) a row. cases: what n counts."""
    table = plain_table(fancy, heading)
    for column in ("value", "95% interval", cases):
        table.add_column(column, justify="right", no_wrap=True)
    for name, estimate, percent in rows:
        table.add_row(name, show(estimate.value, percent), show_interval(estimate, percent), f"{estimate.n:,}")
    return table


def breakdown_table(groups: Mapping[str, Mapping[str, Summary]], fancy: bool) -> Table:
    """One group a row; breakdowns one below the other."""
    table = plain_table(fancy, "solutions by")
    table.add_column("", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for _, name, _ in _COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
    for breakdown, summaries in groups.items():
        for place, (group, summary) in enumerate(summaries.items()):
            figures = [show(getattr(summary, field).value, form[2]) for field, form in _COLUMNS.items()]
            last = place == len(summaries) - 1
            table.add_row(
                breakdown if place == 0 else "", group, f"{summary.solutions:,}", *figures, end_section=last
            )
    return table


def summary_json(summary: Summary) -> dict[str, Any]:
    """{"solutions", "failed", "figures": {name: {"value", "low", "high", "n"}}}; null where undefined."""
    figures = {name: getattr(summary, name) for name in FIGURES}
    return {
        "solutions": summary.solutions,
        "failed": summary.failed,
        "figures": {name: estimate_json(estimate) for name, estimate in figures.items()},
    }


def breakdown_json(groups: Mapping[str, Mapping[str, Summary]]) -> dict[str, Any]:
    """Breakdown -> group -> :func:`summary_json`."""
    return {
        breakdown: {group: summary_json(summary) for group, summary in summaries.items()}
        for breakdown, summaries in groups.items()
    }


def reliability_json(outcomes: Sequence[Outcome], bins: int = 10) -> list[dict[str, Any]]:
    """The bins behind the calibration error."""
    return bins_json(bins_of(outcomes, bins))


def bins_json(bins: Sequence[ReliabilityBin]) -> list[dict[str, Any]]:
    """low, high, count, mean_score, share_correct of each."""
    return [{name: null_for_nan(value) for name, value in dataclasses.asdict(bin).items()} for bin in bins]


def figures_report(task: Task, verifier: dict[str, Any], judged: Judged) -> Report:
    """All figures of one set of solutions, and their breakdowns."""
    summary = summarise(judged.outcomes)
    groups = break_down(judged.outcomes) if judged.breakdowns else {}
    content = {
        **task.settings,
        "verifier": verifier,
        **judged.speed,
        **summary_json(summary),
        "reliability": reliability_json(judged.outcomes),
        "by": breakdown_json(groups),
    }
    lines = heading(task, verifier, judged)
    tables = [figures_table(summary, is_fancy()), breakdown_table(groups, is_fancy())]
    return Report(content, lines, tables, [draw_reliability({verifier["model"]: bins_of(judged.outcomes)})])


def bins_of(outcomes: Sequence[Outcome], bins: int = 10) -> list[ReliabilityBin]:
    scored = [outcome for outcome in outcomes if outcome.score is not None]
    scores = [outcome.score for outcome in scored]
    return reliability_bins(scores, [outcome.first_error < 0 for outcome in scored], bins)


def plain_table(fancy: bool, first: str) -> Table:
    """A table with its first column; fancy: for a terminal, else aligned lines for a pipe."""
    table = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=fancy, padding=(0, 1 if fancy else 2, 0, 0))
    table.add_column(first, no_wrap=True)
    return table
