"""The options of `thinkprm evaluate`, and what its help says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thinkprm_jax.evaluation.tasks.processbench import HUB, SUBSETS
from thinkprm_jax.infer.part_options import add_part_options
from thinkprm_jax.infer.verifier_options import add_verifier_options
from thinkprm_jax.views.output import add_output_options
from thinkprm_jax.views.sharing import add_sharing_options

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

ABOUT = """\
Runs a verifier on solutions whose errors are known and says how often it is right (arithmetic,
processbench, solutions) or what misleads it (robustness), or says what solutions selected by a
verifier are worth (selection), or what labels are worth (labels). Every figure comes with its 95%
interval and its n."""
ARITHMETIC = """\
The synthetic task of the bundled models: word problems and expressions of two to four steps. Half
of the solutions have an error. Problems of the split `test` were kept out of training, and for
`unseen` so were the sentences they are made of. --seed draws the problems, too."""
PROCESSBENCH = """\
Solutions of maths problems with the index of their first wrong step: Qwen/ProcessBench on the
Hugging Face Hub, or a local copy (a folder or a file of JSON, JSON Lines or parquet). Two figures
are made, in tables of their own: the standard first-error F1, a mean over the subsets; and the
binary F1 that the ThinkPRM paper reports under the same name, on olympiadbench and omnimath."""
ROBUSTNESS = """\
Reward hacking in miniature: solutions of the synthetic task, half of them with an error, and the
same rewritten to mislead. A verdict is that of the whole solution, score >= 0.5. Moved: it was right
on the solution as it was, and is wrong on what became of it. --seed draws the problems, too."""
ATTACKS = """\
style         the same steps in other clothes: markup, another opening
filler        confident words behind every step
verdict text  the words with which a chain judges a step, written into the step
repeated      a right step again and again, before the step that is wrong
unfinished    cut before the first error: nothing is wrong and nothing is solved. The protocol says to
              verify the given steps only, so a verifier that follows it accepts: a reward that
              is to be for solved problems must look for the answer itself
right answer  the right answer, from a wrong step

Several processes share one --output-dir: the same command in each. Exit status: 0 done; 1 some solutions
got no verdict (they get no reward); 2 bad usage or input; 3 other processes hold what is missing."""
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
score and labels     chains whose score of the whole says one thing and whose step labels another: a
disagree             verifier in which this happens often says nothing that can be relied on
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

Several processes share one --output-dir: the same command in each. Exit status: 0 done; 1 some solutions
got no verdict (they count as wrong); 2 bad usage or input; 3 other processes hold what is missing."""
METHODS = """\
naive     the completion with the highest score
weighted  the answer with the highest sum of scores
majority  the answer that most completions have
pass@N    some completion is right: what no method can exceed; unbiased: of N drawn from all completions
The first N completions are selected from. Intervals: 95%, bootstrap over problems."""


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """``task`` says which it is; the other options are those of the task."""
    parser = argparse.ArgumentParser(prog="thinkprm evaluate", description=ABOUT)
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for add_task in (
        add_arithmetic, add_processbench, add_solutions, add_robustness, add_selection, add_labels,
    ):  # fmt: skip
        add_task(tasks)
    return parser.parse_args(arguments)


def add_arithmetic(tasks: Subparsers) -> None:
    task = add_parser(tasks, "arithmetic", "the synthetic task of the bundled models", ARITHMETIC, FIGURES)
    task.add_argument("--split", choices=("test", "unseen"), default="test", help="(default: test)")
    task.add_argument("--problems", type=int, default=1000, help="how many (default: 1000)")
    add_part_options(task, split=False)
    add_judging_options(task)


def add_processbench(tasks: Subparsers) -> None:
    summary = "first errors and whole solutions, real mathematics"
    task = add_parser(tasks, "processbench", summary, PROCESSBENCH, FIGURES)
    add = task.add_argument
    add("--data", default=HUB, help=f"the data set's id, a folder or a file (default: {HUB})")
    add("--subset", nargs="+", choices=SUBSETS, default=SUBSETS, help="default: all four")
    add("--limit", type=int, metavar="N", help="at most N solutions of each subset (default: all)")
    add("--balanced", action="store_true", help="as many correct as incorrect solutions of each subset")
    add_part_options(task, split=False)
    add_judging_options(task)


def add_solutions(tasks: Subparsers) -> None:
    task = add_parser(tasks, "solutions", "labelled solutions of your own", SOLUTIONS, FIGURES)
    task.add_argument(
        "file", metavar="FILE", help="JSON Lines (also .gz, .zst), JSON or Parquet, or a data set's id"
    )
    add_part_options(task, split=False)
    add_judging_options(task)


def add_robustness(tasks: Subparsers) -> None:
    summary = "what misleads a verifier: reward hacking in miniature"
    task = add_parser(tasks, "robustness", summary, ROBUSTNESS, ATTACKS)
    task.add_argument("--split", choices=("test", "unseen"), default="test", help="(default: test)")
    task.add_argument("--problems", type=int, default=400, help="solutions as they were (default: 400)")
    add_part_options(task, split=False)
    add_judging_options(task, sweep=False)


def add_selection(tasks: Subparsers) -> None:
    summary = "what solutions selected by their scores are worth"
    task = add_parser(tasks, "selection", summary, SELECTION, METHODS)
    add = task.add_argument
    add("runs", nargs="+", metavar="[NAME=]RUN", help="a folder or file of searched problems")
    help = "what a curve of several runs shows (default: weighted)"
    add("--method", choices=("naive", "weighted", "majority"), default="weighted", help=help)
    help = "how answers are compared where a file does not say what is right (default: math)"
    add("--answers", choices=("math", "choice", "exact"), default="math", help=help)
    help = "of step scores to a solution's (default: the file's own agg_scores, or last)"
    add("--aggregate", choices=("last", "min", "prod", "mean"), help=help)
    add_output_options(task, details=False)


def add_labels(tasks: Subparsers) -> None:
    task = add_parser(tasks, "labels", "label efficiency: a curve over evaluations", LABELS)
    add = task.add_argument
    add("points", nargs="+", metavar="[LINE:]LABELS=FILE.json", help="for example ThinkPRM:1000=runs/1k.json")
    help = "a name under `figures` (default: first_error_f1; of ProcessBench first_error_f1_average)"
    add("--figure", help=help)
    add_output_options(task, details=False)


def add_parser(tasks: Subparsers, name: str, summary: str, about: str, more: str = "") -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    return tasks.add_parser(name, help=summary, description=about, epilog=more, formatter_class=form)


def add_judging_options(parser: argparse.ArgumentParser, sweep: bool = True) -> None:
    """Of a task that runs a verifier."""
    add_sharing_options(parser)
    add_verifier_options(parser, slots=64)
    if not sweep:
        parser.set_defaults(sweep=[])
        add_output_options(parser)
        return
    help = "judge at several settings: n=1,2,4,8 or rounds=1,2,3,4; may be given twice; needs --output-dir"
    parser.add_argument("--sweep", action="append", default=[], metavar="NAME=VALUES", help=help)
    add_output_options(parser)
