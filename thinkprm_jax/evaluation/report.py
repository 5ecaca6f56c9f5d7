"""Summaries for people (tables) and for programs (JSON)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from thinkprm_jax.evaluation.judging import Outcome, Summary
from thinkprm_jax.evaluation.metrics import reliability_bins

# Field of Summary -> (its name in full, its name at the head of a column, shown as a percentage; None: a quantity)
FIGURES = {
    "readable_chains": ("readable chains", "readable", True),
    "step_accuracy": ("step verdicts right", "steps", True),
    "first_error_f1": ("first-error F1", "F1", False),
    "acc_error": ("  accuracy, solutions with an error", "error", True),
    "acc_correct": ("  accuracy, correct solutions", "correct", True),
    "binary_f1": ("binary F1 (positive = correct)", "binary F1", False),
    "auroc": ("AUROC of the score", "AUROC", False),
    "calibration_error": ("expected calibration error", "ECE", False),
    "tokens": ("tokens per verdict", "tokens", None),
}


def figures_table(summary: Summary, fancy: bool) -> Table:
    """One figure a row, with its interval and how many solutions it is of."""
    table = _table(fancy, "figure")
    for heading in ("value", "95% interval", "solutions"):
        table.add_column(heading, justify="right", no_wrap=True)
    for field, (name, _, percent) in FIGURES.items():
        estimate = getattr(summary, field)
        interval = f"{_show(estimate.low, percent)} to {_show(estimate.high, percent)}"
        table.add_row(name, _show(estimate.value, percent), interval, f"{estimate.n:,}")
    return table


def breakdown_table(groups: Mapping[str, Mapping[str, Summary]], fancy: bool) -> Table:
    """One group a row; breakdowns one below the other."""
    table = _table(fancy, "solutions by")
    table.add_column("", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for _, heading, _ in FIGURES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for breakdown, summaries in groups.items():
        for place, (group, summary) in enumerate(summaries.items()):
            figures = [_show(getattr(summary, field).value, form[2]) for field, form in FIGURES.items()]
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
        "figures": {name: _numbers(dataclasses.asdict(estimate)) for name, estimate in figures.items()},
    }


def breakdown_json(groups: Mapping[str, Mapping[str, Summary]]) -> dict[str, Any]:
    """Breakdown -> group -> :func:`summary_json`."""
    return {
        breakdown: {group: summary_json(summary) for group, summary in summaries.items()}
        for breakdown, summaries in groups.items()
    }


def reliability_json(outcomes: Sequence[Outcome], bins: int = 10) -> list[dict[str, Any]]:
    """The bins behind the calibration error: low, high, count, mean_score, share_correct."""
    scored = [outcome for outcome in outcomes if outcome.score is not None]
    scores = [outcome.score for outcome in scored]
    found = reliability_bins(scores, [outcome.first_error < 0 for outcome in scored], bins)
    return [_numbers(dataclasses.asdict(bin)) for bin in found]


def _table(fancy: bool, first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=fancy, padding=(0, 1 if fancy else 2, 0, 0))
    table.add_column(first, no_wrap=True)
    return table


def _show(value: float, percent: bool | None) -> str:
    if math.isnan(value):
        return "-"
    if percent is None:
        return f"{value:,.1f}"
    return f"{100 * value:.1f}%" if percent else f"{value:.3f}"


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
