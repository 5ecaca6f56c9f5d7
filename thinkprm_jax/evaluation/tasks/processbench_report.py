"""ProcessBench's figures in two tables, since the two F1 that go by its name are different things."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thinkprm_jax.evaluation.intervals import Estimate, estimate_json, share_estimate, show
from thinkprm_jax.evaluation.panels import Panel, PointsPanel, ReliabilityPanel
from thinkprm_jax.evaluation.report import (
    FIGURES,
    EvaluationReport,
    bins_json,
    bins_of,
    breakdown_json,
    estimates_table,
    heading,
    name_of,
    summary_json,
)
from thinkprm_jax.evaluation.runner import EvaluationTask, JudgedCases
from thinkprm_jax.evaluation.summary import (
    SUBSET,
    EvaluationSummary,
    OutcomeColumns,
    break_down,
    summarise,
    whole_solution_shares,
)
from thinkprm_jax.evaluation.summary import WHOLE_SOLUTION as WHOLE_SOLUTION_F1
from thinkprm_jax.evaluation.tasks.processbench import PAPER_SUBSETS, task_figures
from thinkprm_jax.records.evaluation import Outcome
from thinkprm_jax.tables import TextTable

FIRST_ERROR = "first-error F1 (the standard ProcessBench figure); predicted index: {how}; unreadable is wrong"
WHOLE_SOLUTION = "binary F1 of whole solutions (as in the ThinkPRM paper): mean score >= 0.5, positive = correct"
# Pooled over subsets these would be figures that nobody else reports; each is given by subset and averaged.
_NOT_POOLED = ("first_error_f1", "first_error_f1_by_score", "acc_error", "acc_correct", "binary_f1")


class ProcessBenchFigures:
    """All figures of one evaluation.

    Attributes:
      summaries: by subset.
      paper: by subset of the paper's, what its binary F1 is made of.
      averages: key of a figure of the task -> the mean over its subsets; names: the same -> its name in full.
      pooled: of all solutions together.
      how: the first error of a solution is predicted, in words.
    """

    def __init__(self, outcomes: Sequence[Outcome], verifier: Mapping[str, Any], resamples: int = 1000) -> None:
        by_subset: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            by_subset.setdefault(outcome.groups[SUBSET], []).append(outcome)
        figures = task_figures(list(by_subset))
        self.summaries = {name: summarise(found, resamples) for name, found in by_subset.items()}
        self.paper = {
            name: _paper_figures(found, resamples) for name, found in by_subset.items() if name in PAPER_SUBSETS
        }
        self.averages = {figure.key: figure.estimate(outcomes, resamples) for figure in figures}
        self.names = {figure.key: figure.name for figure in figures}
        self.pooled = summarise(outcomes, resamples)
        self.how = how_predicted(verifier)


def how_predicted(verifier: Mapping[str, Any]) -> str:
    """verifier: its settings."""
    if "n" not in verifier:
        return "the first step scored one half or less"
    n = verifier["n"]
    return "what the chain says" if n == 1 else f"the vote of the readable ones of {n} chains"


def _paper_figures(outcomes: Sequence[Outcome], resamples: int) -> dict[str, Estimate]:
    """The paper's figure for one subset."""
    columns = OutcomeColumns.of(outcomes)
    precision, recall = whole_solution_shares(columns)
    return {
        "f1": WHOLE_SOLUTION_F1.estimate(outcomes, resamples),
        "precision": precision,
        "recall": recall,
        "no_verdict": share_estimate(int(np.isnan(columns.scores).sum()), len(columns)),
    }


def processbench_report(
    task: EvaluationTask, verifier: Mapping[str, Any], judged: JudgedCases
) -> EvaluationReport:
    """Both F1 of the same verdicts, each by subset and averaged; everything else over all solutions together."""
    figures = ProcessBenchFigures(judged.outcomes, verifier)
    content = {
        **task.settings,
        "verifier": dict(verifier),
        **judged.speed,
        **processbench_json(figures),
        "chains": dataclasses.asdict(judged.counts),
        "reliability": bins_json(bins_of(judged.outcomes)),
        "by": breakdown_json(break_down(judged.outcomes) if judged.breakdowns else {}),
    }
    tables: list[str | TextTable] = [FIRST_ERROR.format(how=figures.how), first_error_table(figures)]
    paper = whole_solution_table(figures)
    if paper is not None:
        tables += [WHOLE_SOLUTION, paper]
    rows = [
        (name, figures.pooled.figure(field), percent)
        for field, (name, _, percent) in FIGURES.items()
        if field not in _NOT_POOLED
    ]
    tables += ["all solutions together", estimates_table("figure", rows, "solutions")]
    reliability = ReliabilityPanel({name_of(verifier): bins_of(judged.outcomes)}, title="all solutions together")
    panels = [*processbench_panels(figures), reliability]
    return EvaluationReport(content, heading(task, verifier, judged), tables, panels)


def processbench_json(figures: ProcessBenchFigures) -> dict[str, Any]:
    """Everything under a name that says which F1 it is."""
    pooled = summary_json(figures.pooled)
    averages = {key: estimate_json(value) for key, value in figures.averages.items()}
    rest = {name: value for name, value in pooled["figures"].items() if name not in _NOT_POOLED}
    return {
        "solutions": pooled["solutions"],
        "failed": pooled["failed"],
        "figures": {**averages, **rest},
        "measures": figures.names,
        "first_error": {
            "what": FIRST_ERROR.format(how=figures.how),
            "subsets": {
                name: {
                    "f1": estimate_json(summary.first_error_f1),
                    "acc_error": estimate_json(summary.acc_error),
                    "acc_correct": estimate_json(summary.acc_correct),
                    "f1_by_score": estimate_json(summary.first_error_f1_by_score),
                    "unreadable_chains": estimate_json(unreadable(summary)),
                    "contradictory_chains": estimate_json(summary.contradictory_chains),
                    "tokens": estimate_json(summary.tokens),
                }
                for name, summary in figures.summaries.items()
            },
        },
        "binary_paper": {
            "what": WHOLE_SOLUTION,
            "subsets": {
                name: {key: estimate_json(value) for key, value in found.items()}
                for name, found in figures.paper.items()
            },
        },
    }


def unreadable(summary: EvaluationSummary) -> Estimate:
    share = summary.readable_chains
    return Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.n)


def first_error_table(figures: ProcessBenchFigures) -> TextTable:
    """The standard: a subset a row, then the mean of their F1."""
    table = TextTable.of(
        "subset",
        "solutions",
        "F1",
        "erroneous found",
        "correct left alone",
        "F1 by step scores",
        "unreadable",
        "contradictory",
        "tokens",
    )
    for index, (name, summary) in enumerate(figures.summaries.items()):
        table.add(
            name,
            f"{summary.solutions:,}",
            _cell(summary.first_error_f1, False),
            _cell(summary.acc_error, True),
            _cell(summary.acc_correct, True),
            _cell(summary.first_error_f1_by_score, False),
            _cell(unreadable(summary), True),
            _cell(summary.contradictory_chains, True),
            show(summary.tokens.value, None),
            ends_section=index == len(figures.summaries) - 1,
        )
    if len(figures.summaries) > 1:
        table.add(
            f"mean of {len(figures.summaries)}",
            f"{figures.pooled.solutions:,}",
            _cell(figures.averages["first_error_f1_average"], False),
            "",
            "",
            _cell(figures.averages["first_error_f1_by_score_average"], False),
            _cell(unreadable(figures.pooled), True),
            _cell(figures.pooled.contradictory_chains, True),
            show(figures.pooled.tokens.value, None),
        )
    return table


def whole_solution_table(figures: ProcessBenchFigures) -> TextTable | None:
    """The paper's; None where none of its subsets was evaluated."""
    if not figures.paper:
        return None
    table = TextTable.of("subset", "solutions", "binary F1", "precision", "recall", "no verdict", "unreadable")
    for name, found in figures.paper.items():
        table.add(
            name,
            f"{found['f1'].n:,}",
            _cell(found["f1"], False),
            _cell(found["precision"], True),
            _cell(found["recall"], True),
            _cell(found["no_verdict"], True),
            _cell(unreadable(figures.summaries[name]), True),
        )
    if len(figures.paper) > 1:
        mean = figures.averages["binary_f1_paper_average"]
        table.add(f"mean of {len(figures.paper)}", f"{mean.n:,}", _cell(mean, False), "", "", "", "")
    return table


def processbench_panels(figures: ProcessBenchFigures) -> list[Panel]:
    """A panel for each kind of F1."""
    standard = {name: summary.first_error_f1 for name, summary in figures.summaries.items()}
    title = "First error (standard)"
    panels: list[Panel] = [
        PointsPanel(_with_mean(standard, figures.averages["first_error_f1_average"]), "first-error F1", title)
    ]
    if figures.paper:
        paper = {name: found["f1"] for name, found in figures.paper.items()}
        rows = _with_mean(paper, figures.averages["binary_f1_paper_average"])
        panels.append(PointsPanel(rows, "binary F1, positive = correct", "Whole solutions (ThinkPRM paper)"))
    return panels


def _with_mean(by_subset: Mapping[str, Estimate], mean: Estimate) -> list[tuple[str, Estimate]]:
    rows = list(by_subset.items())
    return [*rows, (f"mean of {len(rows)}", mean)] if len(rows) > 1 else rows


def _cell(value: Estimate, percent: bool) -> str:
    if math.isnan(value.value):
        return "-"
    if percent:
        return f"{100 * value.value:.1f}% ({100 * value.low:.1f} to {100 * value.high:.1f}, n {value.n:,})"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
