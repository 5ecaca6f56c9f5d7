"""`thinkprm evaluate TASK`: how good a verifier is, and what selecting by its scores is worth.

All figures come from verdicts that this very run made (or, with --details, the run that it continues), or from the
files that it was given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.infer.verifier_options import add_verifier_options, choose_verifier

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.views.output import FigureOutput, add_output_options

if TYPE_CHECKING:
    from thinkprm_jax.evaluation.report import EvaluationReport
    from thinkprm_jax.evaluation.runner import EvaluationTask, JudgedCases

    # (task, settings of the verifier, what it judged) -> what is reported
    ReportOf = Callable[[EvaluationTask, Mapping[str, Any], JudgedCases], EvaluationReport]

HUB = "Qwen/ProcessBench"
SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")
ABOUT = """\
Runs a verifier on solutions whose errors are known and says how often it is right (arithmetic,
processbench, solutions), or says what solutions selected by a verifier are worth (selection), or what
labels are worth (labels). Every figure comes with its 95% interval and its n."""
ARITHMETIC = """\
The synthetic task of the bundled models: word problems and expressions of two to four steps. Half
of the solutions have an error. Problems of the split `test` were kept out of training, and for
`unseen` so were the sentences they are made of. --seed draws the problems, too."""
PROCESSBENCH = """\
Solutions of maths problems with the index of their first wrong step: Qwen/ProcessBench on the
Hugging Face Hub, or a local copy (a folder or a file of JSON, JSON Lines or parquet). Two figures
are made, in tables of their own: the standard first-error F1, a mean over the subsets; and the
binary F1 that the ThinkPRM paper reports under the same name, on olympiadbench and omnimath."""
SOLUTIONS = """\
Solutions of your own: rows with `problem`, `steps` (a list of texts) and `label` (index from 0 of the
first wrong step, -1 for none), optionally `id` and `groups` ({name: group}, for breakdowns)."""
SELECTION = """\
Accuracy by N of one search or several: output folders of `thinkprm search`, completions that
`thinkprm score` has judged, or files that search-and-learn wrote. The first RUN is what the others
are compared with, problem by problem. Runs of the same NAME make one curve: a beam search has one N."""
LABELS = """\
Label efficiency: a curve over evaluations that were run before (their --output), each of a
verifier trained on so many labels. 0 labels: an untrained verifier, a level line."""
FIGURES = """\
readable chains      the chain itself judged every step, up to the first one it calls incorrect
step verdicts right  of all steps up to the true first error; a step without a verdict, or behind an
                     error that only the verifier saw, is wrong
first-error F1       harmonic mean of the two accuracies below it (ProcessBench). Of several chains
                     the readable ones vote on the index; unreadable is wrong. `by step scores`: the
                     first step whose mean score is below 0.5
binary F1            of `mean score >= 0.5` as a decision on whole solutions, positive = correct
calibration error    ten bins of equal width; Brier score: mean squared error of the score
correlations         of the score with being correct
intervals            95%: Wilson's for shares of solutions, bootstrap over solutions for the others

--sweep n=1,2,4,8 judges with more and more chains, --sweep rounds=1,2,3,4 with more rounds of
thinking; given both, n = k is compared with k rounds, which cost about the same tokens. A sweep of
n needs one run: its first chains are the chains of smaller n. The settings of a sweep go to
--output-dir; one that was stopped goes on from there.

Exit status: 0 done; 1 some solutions got no verdict (they count as wrong); 2 bad usage or input."""
METHODS = """\
naive     the completion with the highest score
weighted  the answer with the highest sum of scores
majority  the answer that most completions have
pass      some completion is right: what no method can exceed
The first N completions are selected from. Intervals: 95%, bootstrap over problems."""


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    return options.run(options)


def evaluate_arithmetic(options: argparse.Namespace) -> int:
    from thinkprm_jax.evaluation.report import figures_report
    from thinkprm_jax.evaluation.runner import EvaluationTask
    from thinkprm_jax.evaluation.summary import FIRST_ERROR, WHOLE_SOLUTION
    from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case

    if options.problems < 1:
        raise UserError(f"--problems is {options.problems}, it must be at least 1")
    cases = [arithmetic_case(options.seed, index, options.split) for index in range(options.problems)]
    settings = {"task": "arithmetic", "split": options.split, "problems": options.problems, "seed": options.seed}
    title = f"{options.problems:,} arithmetic problems (split {options.split}, seed {options.seed})"
    return evaluate(options, EvaluationTask(settings, title, cases, (FIRST_ERROR, WHOLE_SOLUTION)), figures_report)


def evaluate_processbench(options: argparse.Namespace) -> int:
    from thinkprm_jax.evaluation.runner import EvaluationTask
    from thinkprm_jax.evaluation.tasks.processbench import choose, read_processbench, task_figures
    from thinkprm_jax.evaluation.tasks.processbench_report import processbench_report

    if options.limit is not None and options.limit < (2 if options.balanced else 1):
        raise UserError(f"--limit is {options.limit}, it must be at least {2 if options.balanced else 1}")
    subsets = list(dict.fromkeys(options.subset))
    rows = choose(read_processbench(options.data, subsets), options.limit, options.balanced)
    if not rows:
        raise UserError(
            f"{options.data}: --balanced leaves nothing: no subset has correct and incorrect solutions"
        )
    subsets = list(dict.fromkeys(row.subset for row in rows))
    settings = {
        "task": "processbench",
        "source": options.data,
        "subsets": subsets,
        "limit": options.limit,
        "balanced": options.balanced,
    }
    sample = f", at most {options.limit:,} of a subset" if options.limit else ""
    balance = ", correct and incorrect balanced" if options.balanced else ""
    title = f"{len(rows):,} solutions of ProcessBench ({', '.join(subsets)}{sample}{balance})"
    return evaluate(
        options,
        EvaluationTask(settings, title, [row.case() for row in rows], task_figures(subsets)),
        processbench_report,
    )


def evaluate_solutions(options: argparse.Namespace) -> int:
    from thinkprm_jax.evaluation.report import figures_report
    from thinkprm_jax.evaluation.runner import EvaluationTask
    from thinkprm_jax.evaluation.summary import FIRST_ERROR, WHOLE_SOLUTION
    from thinkprm_jax.evaluation.tasks.labelled import read_solutions

    cases = read_solutions(options.file)
    settings = {"task": "solutions", "source": options.file}
    title = f"{len(cases):,} solutions of {options.file}"
    return evaluate(options, EvaluationTask(settings, title, cases, (FIRST_ERROR, WHOLE_SOLUTION)), figures_report)


def evaluate(options: argparse.Namespace, task: EvaluationTask, report: ReportOf) -> int:
    """Judges the cases of the task, reports, and returns the exit status."""
    from thinkprm_jax.evaluation.runner import VerifierLoader, judge_all

    if options.sweep:
        return sweep(options, task, report)
    output = FigureOutput.of(options)
    settings = choose_verifier(options)
    judged = judge_all(VerifierLoader(), settings, task.cases, output.details)
    output.write(report(task, settings.stamp, judged))
    return judged.status


def sweep(options: argparse.Namespace, task: EvaluationTask, report: ReportOf) -> int:
    """The same at every setting of the sweep, each in files of its own in the output folder."""
    from thinkprm_jax.evaluation.runner import VerifierLoader, judge_all
    from thinkprm_jax.evaluation.sweep import plan_sweep, sweep_report

    if options.output_dir is None or options.details is not None:
        raise UserError("--sweep needs --output-dir, where each of its settings has files of its own")
    plan = [
        (run, choose_verifier(argparse.Namespace(**{**vars(options), **run.change})))
        for run in plan_sweep(options.sweep)
    ]
    output = FigureOutput.of(options)
    loader, settings, status = VerifierLoader(), [], 0
    for run, chosen in plan:
        judged = judge_all(loader, chosen, task.cases, options.output_dir / f"{run.name}.jsonl")
        status = max(status, judged.status)
        for setting, part in run.settings(chosen.stamp, judged):
            settings.append(setting)
            file = FigureOutput(json=str(options.output_dir / f"{setting.name}.json"))
            file.write_json(report(task, setting.verifier, part).content)
    output.write(sweep_report(task, settings))
    return status


def evaluate_selection(options: argparse.Namespace) -> int:
    from thinkprm_jax.evaluation.selection.report import selection_report
    from thinkprm_jax.evaluation.selection.runs import read_run

    output = FigureOutput.of(options)
    runs = []
    for text in options.runs:
        name, equals, path = text.partition("=")
        named = bool(equals) and not Path(text).exists()
        runs.append(read_run(path if named else text, name if named else None, options.answers, options.aggregate))
    output.write(selection_report(runs, options.method))
    return 0


def evaluate_labels(options: argparse.Namespace) -> int:
    from thinkprm_jax.evaluation.tasks.label_efficiency import check_same_task, label_report, parse_point

    output = FigureOutput.of(options)
    points = [parse_point(text) for text in options.points]
    check_same_task(points)
    output.write(label_report(points, options.figure))
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="thinkprm evaluate", description=ABOUT)
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    task = add_task(tasks, "arithmetic", "the synthetic task of the bundled models", ARITHMETIC, FIGURES)
    task.set_defaults(run=evaluate_arithmetic)
    task.add_argument("--split", choices=("test", "unseen"), default="test", help="(default: test)")
    task.add_argument("--problems", type=int, default=1000, help="how many (default: 1000)")
    add_judging_options(task)
    task = add_task(
        tasks, "processbench", "first errors and whole solutions, real mathematics", PROCESSBENCH, FIGURES
    )
    task.set_defaults(run=evaluate_processbench)
    add = task.add_argument
    add("--data", default=HUB, help=f"the data set's id, a folder or a file (default: {HUB})")
    add("--subset", nargs="+", choices=SUBSETS, default=SUBSETS, help="default: all four")
    add("--limit", type=int, metavar="N", help="at most N solutions of each subset (default: all)")
    add("--balanced", action="store_true", help="as many correct as incorrect solutions of each subset")
    add_judging_options(task)
    task = add_task(tasks, "solutions", "labelled solutions of your own", SOLUTIONS, FIGURES)
    task.set_defaults(run=evaluate_solutions)
    task.add_argument("file", metavar="FILE", help="JSON Lines, JSON or parquet, or a data set's id")
    add_judging_options(task)
    task = add_task(tasks, "selection", "what solutions selected by their scores are worth", SELECTION, METHODS)
    task.set_defaults(run=evaluate_selection)
    add = task.add_argument
    add("runs", nargs="+", metavar="[NAME=]RUN", help="a folder or file of searched problems")
    methods = ("naive", "weighted", "majority")
    add(
        "--method",
        choices=methods,
        default="weighted",
        help="what a curve of several runs shows (default: weighted)",
    )
    help = "how answers are compared where a file does not say what is right (default: math)"
    add("--answers", choices=("math", "choice", "exact"), default="math", help=help)
    help = "of step scores to a solution's (default: the file's own agg_scores, or last)"
    add("--aggregate", choices=("last", "min", "prod", "mean"), help=help)
    add_output_options(task, details=False)
    task = add_task(tasks, "labels", "label efficiency: a curve over evaluations", LABELS)
    task.set_defaults(run=evaluate_labels)
    add = task.add_argument
    add("points", nargs="+", metavar="[LINE:]LABELS=FILE.json", help="for example ThinkPRM:1000=runs/1k.json")
    add(
        "--figure", help="a name under `figures` (default: first_error_f1; of ProcessBench first_error_f1_average)"
    )
    add_output_options(task, details=False)
    return parser.parse_args(arguments)


def add_task(tasks: Any, name: str, summary: str, about: str, more: str = "") -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    return tasks.add_parser(name, help=summary, description=about, epilog=more, formatter_class=form)


def add_judging_options(parser: argparse.ArgumentParser) -> None:
    """Of a task that runs a verifier."""
    add_verifier_options(parser, slots=64)
    help = "judge at several settings: n=1,2,4,8 or rounds=1,2,3,4; may be given twice; needs --output-dir"
    parser.add_argument("--sweep", action="append", metavar="NAME=VALUES", help=help)
    add_output_options(parser)


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm evaluate"))
