"""ProcessBench's figures in two tables, since the two F1 that go by its name are different things."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from thinkprm_jax.evaluation.estimates import (
    Estimate,
    estimate_json,
    share_estimate,
    show,
)
from thinkprm_jax.evaluation.measures import SUBSET, Measure, estimate
from thinkprm_jax.evaluation.measures import WHOLE_SOLUTION as WHOLE_SOLUTION_F1
from thinkprm_jax.evaluation.outcomes import Outcome
from thinkprm_jax.evaluation.output import Report, is_fancy
from thinkprm_jax.evaluation.plots import Draw, draw_points, draw_reliability
from thinkprm_jax.evaluation.report import (
    FIGURES,
    bins_of,
    breakdown_json,
    estimates_table,
    plain_table,
    reliability_json,
    summary_json,
)
from thinkprm_jax.evaluation.running import Judged, Task, heading
from thinkprm_jax.evaluation.summary import Summary, break_down, summarise, whole_solution_shares
from thinkprm_jax.evaluation.summary import Table as Columns
from thinkprm_jax.evaluation.tasks.processbench import PAPER_SUBSETS, measures

FIRST_ERROR = "first-error F1 (the standard ProcessBench figure); predicted index: {how}; unreadable is wrong"
WHOLE_SOLUTION = "binary F1 of whole solutions (as in the ThinkPRM paper): mean score >= 0.5, positive = correct"
# Pooled over subsets these would be figures that nobody else reports; each is given by subset and averaged.
_NOT_POOLED = ("first_error_f1", "first_error_f1_by_score", "acc_error", "acc_correct", "binary_f1")


class Figures:
    """All figures of one evaluation: by subset, averaged, and of what may be pooled."""

    def __init__(self, outcomes: Sequence[Outcome], verifier: Mapping[str, Any], resamples: int = 1000) -> None:
        self.by_subset: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            self.by_subset.setdefault(outcome.groups[SUBSET], []).append(outcome)
        self.summaries: dict[str, Summary] = {
            name: summarise(found, resamples) for name, found in self.by_subset.items()
        }
        self.binary = {
            name: _binary(found, resamples) for name, found in self.by_subset.items() if name in PAPER_SUBSETS
        }
        self.measures: dict[Measure, Estimate] = {
            m: estimate(m, outcomes, resamples) for m in measures(list(self.by_subset))
        }
        self.pooled = summarise(outcomes, resamples)
        self.how = how_predicted(verifier)


def how_predicted(verifier: Mapping[str, Any]) -> str:
    """verifier: its settings."""
    if "n" not in verifier:
        return "the first step scored one half or less"
    n = verifier["n"]
    return "what the chain says" if n == 1 else f"the vote of the readable ones of {n} chains"


def _binary(outcomes: Sequence[Outcome], resamples: int) -> dict[str, Estimate]:
    """The paper's figure for one subset."""
    table = Columns.of(outcomes)
    precision, recall = whole_solution_shares(table)
    missing = float(np.isnan(table.scores).mean())
    return {
        "f1": estimate(WHOLE_SOLUTION_F1, outcomes, resamples),
        "precision": precision,
        "recall": recall,
        "no_verdict": share_estimate(missing, len(outcomes)),
    }


def processbench_report(task: Task, verifier: dict[str, Any], judged: Judged) -> Report:
    figures = Figures(judged.outcomes, verifier)
    content = {
        **task.settings,
        "verifier": verifier,
        **judged.speed,
        **processbench_json(figures),
        "reliability": reliability_json(judged.outcomes),
        "by": breakdown_json(break_down(judged.outcomes) if judged.breakdowns else {}),
    }
    tables: list[Any] = [FIRST_ERROR.format(how=figures.how), first_error_table(figures, is_fancy())]
    binary = whole_solution_table(figures, is_fancy())
    if binary is not None:
        tables += [WHOLE_SOLUTION, binary]
    rows = [
        (name, getattr(figures.pooled, field), percent)
        for field, (name, _, percent) in FIGURES.items()
        if field not in _NOT_POOLED
    ]
    tables += ["all solutions together", estimates_table("figure", rows, "solutions", is_fancy())]
    reliability = draw_reliability({verifier["model"]: bins_of(judged.outcomes)}, title="all solutions together")
    return Report(content, heading(task, verifier, judged), tables, [*processbench_pictures(figures), reliability])


def processbench_json(figures: Figures) -> dict[str, Any]:
    """Everything under a name that says which F1 it is."""
    pooled = summary_json(figures.pooled)
    of_measures = {measure.key: estimate_json(value) for measure, value in figures.measures.items()}
    rest = {name: value for name, value in pooled["figures"].items() if name not in _NOT_POOLED}
    return {
        "solutions": pooled["solutions"],
        "failed": pooled["failed"],
        "figures": {**of_measures, **rest},
        "measures": {measure.key: measure.name for measure in figures.measures},
        "first_error": {
            "what": FIRST_ERROR.format(how=figures.how),
            "subsets": {
                name: {
                    "f1": estimate_json(summary.first_error_f1),
                    "acc_error": estimate_json(summary.acc_error),
                    "acc_correct": estimate_json(summary.acc_correct),
                    "f1_by_score": estimate_json(summary.first_error_f1_by_score),
                    "unreadable_chains": estimate_json(unreadable(summary)),
                    "tokens": estimate_json(summary.tokens),
                }
                for name, summary in figures.summaries.items()
            },
        },
        "binary_paper": {
            "what": WHOLE_SOLUTION,
            "subsets": {
                name: {key: estimate_json(value) for key, value in found.items()}
                for name, found in figures.binary.items()
            },
        },
    }


def unreadable(summary: Summary) -> Estimate:
    share = summary.readable_chains
    return Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.n)


def first_error_table(figures: Figures, fancy: bool) -> Table:
    """The standard: a subset a row, then the mean of their F1."""
    table = plain_table(fancy, "subset")
    headings = (
        "solutions",
        "F1",
        "erroneous found",
        "correct left alone",
        "F1 by step scores",
        "unreadable",
        "tokens",
    )
    for column in headings:
        table.add_column(column, justify="right", no_wrap=True)
    for place, (name, summary) in enumerate(figures.summaries.items()):
        table.add_row(
            name,
            f"{summary.solutions:,}",
            _cell(summary.first_error_f1, False),
            _cell(summary.acc_error, True),
            _cell(summary.acc_correct, True),
            _cell(summary.first_error_f1_by_score, False),
            _cell(unreadable(summary), True),
            show(summary.tokens.value, None),
            end_section=place == len(figures.summaries) - 1,
        )
    if len(figures.summaries) > 1:
        means = {measure.key: value for measure, value in figures.measures.items()}
        table.add_row(
            f"mean of {len(figures.summaries)}",
            f"{figures.pooled.solutions:,}",
            _cell(means["first_error_f1_average"], False),
            "",
            "",
            _cell(means["first_error_f1_by_score_average"], False),
            _cell(unreadable(figures.pooled), True),
            show(figures.pooled.tokens.value, None),
        )
    return table


def whole_solution_table(figures: Figures, fancy: bool) -> Table | None:
    """The paper's; None where none of its subsets was evaluated."""
    if not figures.binary:
        return None
    table = plain_table(fancy, "subset")
    for column in ("solutions", "binary F1", "precision", "recall", "no verdict", "unreadable"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, found in figures.binary.items():
        table.add_row(
            name,
            f"{found['f1'].n:,}",
            _cell(found["f1"], False),
            _cell(found["precision"], True),
            _cell(found["recall"], True),
            _cell(found["no_verdict"], True),
            _cell(unreadable(figures.summaries[name]), True),
        )
    if len(figures.binary) > 1:
        mean = next(v for m, v in figures.measures.items() if m.key == "binary_f1_paper_average")
        table.add_row(f"mean of {len(figures.binary)}", f"{mean.n:,}", _cell(mean, False), "", "", "", "")
    return table


def processbench_pictures(figures: Figures) -> list[Draw]:
    """A panel for each kind of F1."""
    rows = [(name, summary.first_error_f1) for name, summary in figures.summaries.items()]
    means = {measure.key: value for measure, value in figures.measures.items()}
    if len(rows) > 1:
        rows.append((f"mean of {len(rows)}", means["first_error_f1_average"]))
    draws = [draw_points({"": rows}, x_label="first-error F1", title="First error (standard)")]
    if figures.binary:
        points = [(name, found["f1"]) for name, found in figures.binary.items()]
        if len(points) > 1:
            points.append((f"mean of {len(points)}", means["binary_f1_paper_average"]))
        title = "Whole solutions (ThinkPRM paper)"
        draws.append(draw_points({"": points}, x_label="binary F1, positive = correct", title=title))
    return draws


def _cell(value: Estimate, percent: bool) -> str:
    if math.isnan(value.value):
        return "-"
    if percent:
        return f"{100 * value.value:.1f}% ({100 * value.low:.1f} to {100 * value.high:.1f}, n {value.n:,})"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
