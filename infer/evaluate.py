"""`thinkprm evaluate TASK`: how good a verifier is, and what selecting by its scores is worth.

All figures come from verdicts that this very run made (or, with --details, the run that it continues), or from the
files that it was given.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.job import MISSING, Sharing
from thinkprm_jax.records.joined_output import is_shared
from thinkprm_jax.storage import Location, location
from thinkprm_jax.views.sharing import chosen_sharing

if TYPE_CHECKING:
    from thinkprm_jax.evaluation.report import EvaluationReport
    from thinkprm_jax.evaluation.runner import EvaluationTask, JudgedCases, VerifierLoader
    from thinkprm_jax.verifier.settings import VerifierSettings

    # (task, settings of the verifier, what it judged) -> what is reported
    ReportOf = Callable[[EvaluationTask, Mapping[str, Any], JudgedCases], EvaluationReport]


def main(arguments: Sequence[str]) -> int:
    from thinkprm_jax.infer.evaluate_options import parse_options

    options = parse_options(arguments)
    if options.task == "selection":
        return compare_runs(options)
    if options.task == "labels":
        return draw_label_efficiency(options)
    return sweep(options) if options.sweep else evaluate(options)


def evaluate(options: argparse.Namespace) -> int:
    """A verifier on solutions whose errors are known."""
    from thinkprm_jax.evaluation.runner import VerifierLoader
    from thinkprm_jax.infer.verifier_options import choose_verifier, place_chosen
    from thinkprm_jax.views.output import FigureOutput

    # What is judged, where the figures go, who judges, and who does beside this process
    task, report_of = read_task(options)
    output = FigureOutput.of(options)
    verifier = choose_verifier(options)
    sharing = shared_through(output.details, options)

    # Verdicts: those that the details hold already, then the others
    loader = VerifierLoader(functools.partial(place_chosen, options))
    judged = judge(loader, verifier, task, output.details, sharing)
    if judged is None:
        return MISSING

    # Figures
    output.write(report_of(task, verifier.stamp, judged))
    return judged.status


def sweep(options: argparse.Namespace) -> int:
    """The same at every setting of a sweep, each in files of its own in the output folder."""
    from thinkprm_jax.evaluation.runner import VerifierLoader
    from thinkprm_jax.evaluation.sweep import plan_sweep, sweep_report
    from thinkprm_jax.infer.verifier_options import choose_verifier, place_chosen
    from thinkprm_jax.views.output import FigureOutput

    # What is judged, where the figures go, and who judges
    task, report_of = read_task(options)
    if options.output_dir is None or options.details is not None:
        raise UserError("--sweep needs --output-dir, where each of its settings has files of its own")
    runs = plan_sweep(options.sweep)
    verifiers = [choose_verifier(argparse.Namespace(**{**vars(options), **run.change})) for run in runs]
    output = FigureOutput.of(options)
    details = [options.output_dir / f"{run.name}.jsonl" for run in runs]
    sharing = shared_through(details[0], options)
    loader = VerifierLoader(functools.partial(place_chosen, options))

    # With others: whatever is free of any run, before anybody waits
    for verifier, file in zip(verifiers, details, strict=True):
        if is_shared(file, sharing):
            judge(loader, verifier, task, file, dataclasses.replace(sharing, waits=False), quiet=True)

    # Verdicts: run by run, and the figures of each setting that a run gives
    settings, status = [], 0
    for run, verifier, file in zip(runs, verifiers, details, strict=True):
        judged = judge(loader, verifier, task, file, sharing)
        if judged is None:
            return MISSING
        status = max(status, judged.status)
        for setting, part in run.settings(verifier.stamp, judged):
            settings.append(setting)
            file = FigureOutput(json=str(options.output_dir / f"{setting.name}.json"))
            file.save(report_of(task, setting.verifier, part))

    # All settings side by side
    output.write(sweep_report(task, settings))
    return status


def shared_through(details: Location | None, options: argparse.Namespace) -> Sharing:
    """How this process takes part in an evaluation with these details.

    Raises:
      UserError: there are others, and nothing through which they could share it.
    """
    sharing = chosen_sharing(options)
    if details is not None:
        return sharing
    if sharing.parts is not None:
        raise UserError("--parts is for details that several processes write: --output-dir FOLDER")
    if sharing.rank.processes > 1 and sharing.rank.source != "SLURM array":
        raise UserError(
            f"{sharing.rank.processes} processes ({sharing.rank.source}) share the details of an evaluation: "
            "--output-dir FOLDER; or --processes 1, where each judges everything"
        )
    return Sharing()


def judge(
    loader: VerifierLoader,
    verifier: VerifierSettings,
    task: EvaluationTask,
    details: Location | None,
    sharing: Sharing,
    quiet: bool = False,
) -> JudgedCases | None:
    """All cases of a task, alone or with other processes; None where others hold what is missing, which is said
    unless ``quiet``."""
    from thinkprm_jax.evaluation.runner import judge_all, judge_shared

    if details is None or not is_shared(details, sharing):
        return judge_all(loader, verifier, task.cases, details)
    judged = judge_shared(loader, verifier, task.cases, details, sharing)
    if not isinstance(judged, str):
        return judged
    if not quiet:
        print(judged, file=sys.stderr)
    return None


def read_task(options: argparse.Namespace) -> tuple[EvaluationTask, ReportOf]:
    """What a verifier judges, and how that is reported."""
    from thinkprm_jax.evaluation.report import figures_report
    from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_task
    from thinkprm_jax.evaluation.tasks.labelled import labelled_task
    from thinkprm_jax.evaluation.tasks.processbench import processbench_task
    from thinkprm_jax.evaluation.tasks.processbench_report import processbench_report
    from thinkprm_jax.evaluation.tasks.robustness import robustness_report, robustness_task
    from thinkprm_jax.infer.part_options import chosen_part

    if options.task == "arithmetic":
        check_at_least("--problems", options.problems, 1)
        return arithmetic_task(options.seed, options.split, options.problems, chosen_part(options)), figures_report
    if options.task == "robustness":
        check_at_least("--problems", options.problems, 1)
        task = robustness_task(options.seed, options.split, options.problems, chosen_part(options))
        return task, robustness_report
    if options.task == "solutions":
        return labelled_task(options.file, chosen_part(options)), figures_report
    check_at_least("--limit", options.limit, 2 if options.balanced else 1)
    part = chosen_part(options)
    task = processbench_task(options.data, options.subset, options.limit, options.balanced, part)
    return task, processbench_report


def compare_runs(options: argparse.Namespace) -> int:
    """Searched problems: what solutions selected by their scores are worth."""
    from thinkprm_jax.evaluation.selection.comparison import selection_report
    from thinkprm_jax.evaluation.selection.runs import read_run
    from thinkprm_jax.views.output import FigureOutput

    output = FigureOutput.of(options)
    runs = []
    for text in options.runs:
        name, equals, path = text.partition("=")
        named = bool(equals) and not location(text).exists()
        runs.append(read_run(path if named else text, name if named else None, options.answers, options.aggregate))
    output.write(selection_report(runs, options.method))
    return 0


def draw_label_efficiency(options: argparse.Namespace) -> int:
    """Evaluations that were run before, as a curve over the labels their verifiers learnt from."""
    from thinkprm_jax.evaluation.tasks.label_efficiency import check_same_task, label_report, parse_point
    from thinkprm_jax.views.output import FigureOutput

    output = FigureOutput.of(options)
    points = [parse_point(text) for text in options.points]
    check_same_task(points)
    output.write(label_report(points, options.figure))
    return 0


def check_at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UserError(f"{option} is {value}, it must be at least {least}")


if __name__ == "__main__":
    program.start(main, "thinkprm evaluate")
