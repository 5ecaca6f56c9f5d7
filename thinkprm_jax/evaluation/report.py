"""What an evaluation says: figures as JSON, as tables and as panels of a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.evaluation.intervals import Estimate, estimate_json, null_for_nan, show, show_interval
from thinkprm_jax.evaluation.metrics import ReliabilityBin, reliability_bins
from thinkprm_jax.evaluation.panels import Panel, ReliabilityPanel
from thinkprm_jax.evaluation.runner import EvaluationTask, JudgedCases
from thinkprm_jax.evaluation.summary import EvaluationSummary, break_down, summarise
from thinkprm_jax.progress import spell_rate
from thinkprm_jax.records.evaluation import Outcome
from thinkprm_jax.tables import TextTable

# Field of EvaluationSummary -> (its name in full, at the head of a column, as a percentage; None: a quantity)
FIGURES = {
    "readable_chains": ("readable chains", "readable", True),
    "contradictory_chains": ("score and labels disagree", "contradictory", True),
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
# JSON has them by group, too.
_NOT_BROKEN_DOWN = ("contradictory_chains", "first_error_f1_by_score", "brier", "point_biserial", "spearman")
_COLUMNS = {field: form for field, form in FIGURES.items() if field not in _NOT_BROKEN_DOWN}


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found.

    Attributes:
      content: as JSON.
      lines: of text above the tables.
      tables: tables, and lines of text between them.
      panels: of the picture.
    """

    content: Mapping[str, Any]
    lines: Sequence[str]
    tables: Sequence[str | TextTable]
    panels: Sequence[Panel] = ()


def figures_report(task: EvaluationTask, verifier: Mapping[str, Any], judged: JudgedCases) -> EvaluationReport:
    """All figures of one set of solutions, and their breakdowns."""
    summary = summarise(judged.outcomes)
    groups = break_down(judged.outcomes) if judged.breakdowns else {}
    content = {
        **task.settings,
        "verifier": dict(verifier),
        **judged.speed,
        **summary_json(summary),
        "chains": dataclasses.asdict(judged.counts),
        "reliability": bins_json(bins_of(judged.outcomes)),
        "by": breakdown_json(groups),
    }
    tables = [figures_table(summary), breakdown_table(groups)]
    panel = ReliabilityPanel({name_of(verifier): bins_of(judged.outcomes)})
    return EvaluationReport(content, heading(task, verifier, judged), tables, [panel])


def heading(task: EvaluationTask, verifier: Mapping[str, Any], judged: JudgedCases) -> list[str]:
    """Lines above the tables: what judged what, how, and how fast."""
    speed = judged.speed
    rates = [spell_rate(speed[f"{unit}s_per_second"], 1.0, unit) for unit in ("verdict", "token")]
    told = [f"{speed['judged_now']:,} verdicts in {speed['seconds']:.1f} s", *filter(None, rates)]
    pace = ", ".join(told)
    dtype = f"{verifier['dtype']} on " if verifier.get("dtype") else ""
    lines = [
        f"{name_of(verifier)} on {task.title}",
        f"{_settings_in_words(verifier)}, {dtype}{speed['device']}: {pace}",
    ]
    failed = sum(outcome.error is not None for outcome in judged.outcomes)
    lines += [f"{failed:,} solutions got no verdict and count as wrong"] if failed else []
    return [*lines, *judged.counts.lines]


def name_of(verifier: Mapping[str, Any]) -> str:
    """For people: the model, or the kind of a verifier without one."""
    return str(verifier.get("model") or verifier["kind"])


def _settings_in_words(verifier: Mapping[str, Any]) -> str:
    if "temperature" not in verifier:
        return f"{verifier['kind']}: no chains, a score a step in one pass"
    chains = "greedy" if verifier["temperature"] == 0 else f"temperature {verifier['temperature']:g}"
    rounds = f", rounds {verifier['rounds']}" if "rounds" in verifier else ""
    prompt = f", prompt {verifier['judge_prompt']}" if "judge_prompt" in verifier else ""
    return f"{verifier['kind']}, n {verifier['n']}{rounds}{prompt}, {chains}"


def figures_table(summary: EvaluationSummary) -> TextTable:
    """One figure a row, with its interval and how many solutions it is of."""
    rows = [(name, summary.figure(field), percent) for field, (name, _, percent) in FIGURES.items()]
    return estimates_table("figure", rows, "solutions")


def estimates_table(first: str, rows: Sequence[tuple[str, Estimate, bool | None]], cases: str) -> TextTable:
    """(name, figure, how to show it) a row. cases: what n counts."""
    table = TextTable.of(first, "value", "95% interval", cases)
    for name, estimate, percent in rows:
        table.add(name, show(estimate.value, percent), show_interval(estimate, percent), f"{estimate.n:,}")
    return table


def breakdown_table(groups: Mapping[str, Mapping[str, EvaluationSummary]]) -> TextTable:
    """One group a row; breakdowns one below the other."""
    table = TextTable.of("solutions by", "", "n", *(name for _, name, _ in _COLUMNS.values()), left=2)
    for breakdown, summaries in groups.items():
        for index, (group, summary) in enumerate(summaries.items()):
            figures = [show(summary.figure(field).value, percent) for field, (*_, percent) in _COLUMNS.items()]
            name = breakdown if index == 0 else ""
            table.add(name, group, f"{summary.solutions:,}", *figures, ends_section=index == len(summaries) - 1)
    return table


def summary_json(summary: EvaluationSummary) -> dict[str, Any]:
    """{"solutions", "failed", "figures": {name: {"value", "low", "high", "n"}}}; null where undefined."""
    return {
        "solutions": summary.solutions,
        "failed": summary.failed,
        "figures": {name: estimate_json(summary.figure(name)) for name in FIGURES},
    }


def breakdown_json(groups: Mapping[str, Mapping[str, EvaluationSummary]]) -> dict[str, Any]:
    """Breakdown -> group -> :func:`summary_json`."""
    return {
        breakdown: {group: summary_json(summary) for group, summary in summaries.items()}
        for breakdown, summaries in groups.items()
    }


def bins_of(outcomes: Sequence[Outcome]) -> list[ReliabilityBin]:
    """The bins behind the calibration error."""
    scored = [(outcome.score, outcome.first_error < 0) for outcome in outcomes if outcome.score is not None]
    return reliability_bins([score for score, _ in scored], [correct for _, correct in scored])


def bins_json(bins: Sequence[ReliabilityBin]) -> list[dict[str, Any]]:
    """low, high, count, mean_score, share_correct of each."""
    return [{name: null_for_nan(value) for name, value in dataclasses.asdict(bin).items()} for bin in bins]
