"""The figures of the paper in miniature, read from the folders that its stages left."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkprm_jax.evaluation.intervals import Estimate, estimate_json, mean_estimate, share_estimate
from thinkprm_jax.evaluation.metrics import ReliabilityBin, reliability_bins
from thinkprm_jax.evaluation.selection.accuracy import (
    SCORE_FIGURES,
    difference_by_n,
    hits_by_n,
    numbers_of,
    pooled_scores,
    score_figures,
)
from thinkprm_jax.evaluation.selection.comparison import ByN, SelectionFigures, selection_figures
from thinkprm_jax.evaluation.selection.runs import SearchedProblem, SelectionRun, read_run
from thinkprm_jax.evaluation.summary import AUROC, FIRST_ERROR, WHOLE_SOLUTION, EvaluationSummary, summarise
from thinkprm_jax.evaluation.sweep import SweepGain, SweepSetting, compare_settings
from thinkprm_jax.miniature.cases import by_steps
from thinkprm_jax.miniature.stages import MiniatureStage, SweepStage
from thinkprm_jax.miniature.study import SPLIT, TREES, MiniaturePlan, shell
from thinkprm_jax.records.evaluation import EvaluationRow
from thinkprm_jax.records.search_folder import read_search_folder

BEST_OF_N = "best-of-N"
MEASURES = (FIRST_ERROR, WHOLE_SOLUTION, AUROC)
# Fields of a summary that a setting of verifier compute is known by, with their heads of columns.
COMPUTE_FIGURES = {
    "first_error_f1": "first-error F1",
    "binary_f1": "binary F1",
    "auroc": "AUROC",
    "calibration_error": "ECE",
}
# What "correct" means of a solution whose score is looked at.
TRUTHS = {"answer": "its answer is right", "steps": "every step is right"}


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """By N, with one verifier. searches: best-of-N, then beam search and DVTS at each N. over_majority: what naive
    and weighted gain in best-of-N over the majority of the same solutions."""

    searches: Sequence[SelectionFigures]
    over_majority: ByN


@dataclasses.dataclass(frozen=True)
class Compute:
    """Of one verifier. gains: paired.

    cut: share of the solutions with a chain that did not fit. Where there are some, a figure is of the length and
    not of the setting.
    """

    settings: Sequence[SweepSetting]
    summaries: Sequence[EvaluationSummary]
    cut: Sequence[Estimate]
    gains: Sequence[SweepGain]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Of one verifier's scores of the best-of-N solutions, against one kind of truth."""

    figures: Mapping[str, Estimate]
    bins: Sequence[ReliabilityBin]


@dataclasses.dataclass(frozen=True)
class MiniatureFindings:
    """accuracy, compute: by verifier. calibration: by verifier and kind of truth. between: what the first verifier
    gains over each other one, on the same solutions."""

    accuracy: Mapping[str, Accuracy]
    between: Mapping[str, ByN]
    compute: Mapping[str, Compute]
    calibration: Mapping[str, Mapping[str, Calibration]]


def read_findings(plan: MiniaturePlan, stages: Sequence[MiniatureStage]) -> MiniatureFindings:
    """From the folders of finished stages."""
    names = list(plan.verifiers)
    runs = {name: read_run(plan.best_of_n(name), BEST_OF_N) for name in names}
    sweeps = {stage.folder: stage for stage in stages if isinstance(stage, SweepStage)}
    return MiniatureFindings(
        {name: _accuracy(plan, name, runs[name]) for name in names},
        {name: difference_by_n(runs[names[0]], runs[name]) for name in names[1:]},
        {name: _compute(plan.compute(name), sweeps[plan.compute(name)].judge()[0]) for name in names},
        {name: _calibration(plan, name, runs[name]) for name in names},
    )


def _accuracy(plan: MiniaturePlan, verifier: str, best_of_n: SelectionRun) -> Accuracy:
    trees = [
        read_run(plan.tree(approach, verifier, n), name)
        for approach, name in TREES.items()
        for n in plan.size.beams
    ]
    return Accuracy(selection_figures([best_of_n, *trees]), gain_over_majority(best_of_n))


def gain_over_majority(run: SelectionRun) -> dict[int, dict[str, Estimate]]:
    """N -> naive and weighted -> by how much their accuracy is above that of the majority; problems are resampled
    with what all methods make of them (paired)."""
    found: dict[int, dict[str, Estimate]] = {}
    for n, hits in hits_by_n(run.problems, numbers_of(run)).items():
        found[n] = {method: mean_estimate(hits[method] - hits["majority"]) for method in ("naive", "weighted")}
    return found


def _compute(folder: Path, settings: Sequence[SweepSetting]) -> Compute:
    gains = [
        gain
        for gain in compare_settings(settings, MEASURES)
        if (gain.ours.value, gain.theirs.value) != (1, 1)  # one chain of one round, both
    ]
    most = max(setting.value for setting in settings if setting.line == "n")
    files = [f"n={most}.jsonl" if setting.line == "n" else f"{setting.name}.jsonl" for setting in settings]
    return Compute(
        settings,
        [summarise(setting.outcomes) for setting in settings],
        [cut_share(folder / file, setting) for file, setting in zip(files, settings, strict=True)],
        gains,
    )


def cut_share(details: Path, setting: SweepSetting) -> Estimate:
    """Of the rows of a sweep's file, those in which a chain of this setting ended because it did not fit."""
    chains = setting.value if setting.line == "n" else 1
    cut = [
        any(chain.finish_reason == "context" for chain in row.verdict.chains[:chains])
        for row in EvaluationRow.read(details)
    ]
    return share_estimate(sum(cut), len(cut))


def _calibration(plan: MiniaturePlan, verifier: str, run: SelectionRun) -> dict[str, Calibration]:
    rows = read_search_folder(plan.best_of_n(verifier)).rows
    truths = {"answer": run.problems, "steps": by_steps(run.problems, rows, plan.seed, SPLIT)}
    return {truth: _calibration_of(problems) for truth, problems in truths.items()}


def _calibration_of(problems: Sequence[SearchedProblem]) -> Calibration:
    return Calibration(score_figures(problems), reliability_bins(*pooled_scores(problems)))


@dataclasses.dataclass(frozen=True)
class MiniatureFigure:
    """A number of the results. question: that it belongs to. of: of what. command: repeats it."""

    question: str
    name: str
    of: Mapping[str, Any]
    estimate: Estimate
    command: str

    def as_dict(self, seed: int) -> dict[str, Any]:
        return {
            "question": self.question,
            "figure": self.name,
            **self.of,
            **estimate_json(self.estimate),
            "seed": seed,
            "command": self.command,
        }


def figures_of(
    findings: MiniatureFindings, plan: MiniaturePlan, stages: Sequence[MiniatureStage]
) -> Iterator[MiniatureFigure]:
    """Every number. What no single command gives has that of the whole program."""
    commands = {str(stage.folder): stage.command for stage in stages}
    for verifier, accuracy in findings.accuracy.items():
        yield from _accuracy_figures(verifier, accuracy, commands, _selection_command(plan, verifier))
    first = next(iter(findings.accuracy))
    for verifier, by_n in findings.between.items():
        of = {"search": BEST_OF_N, "verifier": first, "over": f"{BEST_OF_N} with {verifier}"}
        yield from _gains(by_n, of, _verifiers_command(plan))
    for verifier, compute in findings.compute.items():
        yield from _compute_figures(verifier, compute, commands[str(plan.compute(verifier))])
    for verifier, truths in findings.calibration.items():
        for truth, found in truths.items():
            of = {"verifier": verifier, "truth": TRUTHS[truth]}
            command = _verifiers_command(plan) if truth == "answer" else plan.command
            for name in SCORE_FIGURES:
                yield MiniatureFigure("calibration", name, of, found.figures[name], command)


def _accuracy_figures(
    verifier: str, accuracy: Accuracy, commands: Mapping[str, str], comparing: str
) -> Iterator[MiniatureFigure]:
    for found in accuracy.searches:
        of = {"search": found.run.name, "verifier": verifier}
        command = commands[found.run.source]
        for n, methods in found.by_n.items():
            tokens = found.tokens.get(n)
            spent = {} if tokens is None else {"generator_tokens": tokens[0], "verifier_tokens": tokens[1]}
            for method, accuracy_of in methods.items():
                point = {**of, "N": n, "method": method, **spent}
                yield MiniatureFigure("accuracy by N", "accuracy", point, accuracy_of, command)
        yield from _gains(found.differences or {}, {**of, "over": BEST_OF_N}, comparing)
    of = {"search": BEST_OF_N, "verifier": verifier, "over": "majority"}
    yield from _gains(accuracy.over_majority, of, comparing)


def _gains(by_n: ByN, of: Mapping[str, Any], command: str) -> Iterator[MiniatureFigure]:
    for n, methods in by_n.items():
        for method, gain in methods.items():
            yield MiniatureFigure(
                "accuracy by N", "gain in accuracy", {**of, "N": n, "method": method}, gain, command
            )


def _compute_figures(verifier: str, compute: Compute, command: str) -> Iterator[MiniatureFigure]:
    question = "verifier compute"
    for setting, summary, cut in zip(compute.settings, compute.summaries, compute.cut, strict=True):
        of = {"verifier": verifier, "setting": setting.name}
        yield MiniatureFigure(question, "cut", of, cut, command)
        for name in ("tokens", *COMPUTE_FIGURES):
            yield MiniatureFigure(question, name, of, summary.figure(name), command)
    for gain in compute.gains:
        of = {"verifier": verifier, "setting": gain.ours.name, "over": gain.theirs.name}
        for name, estimate in gain.figures.items():
            yield MiniatureFigure(question, f"gain in {name}", of, estimate, command)


def _selection_command(plan: MiniaturePlan, verifier: str) -> str:
    """The accuracies of one verifier's searches side by side."""
    trees = [
        f"{name}={plan.tree(approach, verifier, n)}" for approach, name in TREES.items() for n in plan.size.beams
    ]
    return shell("thinkprm", "evaluate", "selection", f"{BEST_OF_N}={plan.best_of_n(verifier)}", *trees)


def _verifiers_command(plan: MiniaturePlan) -> str:
    """The verifiers side by side on the same solutions."""
    runs = [f"{name}={plan.best_of_n(name)}" for name in plan.verifiers]
    return shell("thinkprm", "evaluate", "selection", *runs)
