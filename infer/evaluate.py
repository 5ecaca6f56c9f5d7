"""`thinkprm evaluate TASK`: how good a verifier is, on solutions whose errors are known.

All figures come from verdicts that this very run made (or, with --details, the run that it continues).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.verifier.options import (
    add_verifier_options,
    discriminative_settings,
    load_discriminative,
    load_verifier,
    settle,
    settle_discriminative,
    verifier_settings,
)

if TYPE_CHECKING:
    from thinkprm_jax.evaluation.judging import Case, Outcome
    from thinkprm_jax.verifier.discriminative import StepVerdict
    from thinkprm_jax.verifier.thinkprm import Verdict

ABOUT = """\
Runs a verifier on solutions whose errors are known and says how often it is right: on whole solutions, on steps,
and at finding the first error, with 95% intervals."""
ARITHMETIC = """\
The synthetic task of the bundled models: word problems and expressions of two to four steps. Half of the solutions
have an error. Problems of the split `test` were kept out of training, and for `unseen` so were the sentences they
are made of. --seed draws the problems, too."""
FIGURES = """\
readable chains      the chain itself judged every step, up to the first one it calls incorrect
step verdicts right  of all steps up to the true first error; a step without a verdict, or behind an error that
                     only the verifier saw, is wrong
first-error F1       harmonic mean of the two accuracies below it (ProcessBench); unreadable is wrong
binary F1            of `score >= 0.5` as a decision on whole solutions, positive = correct
intervals            95%: Wilson's for shares of solutions, bootstrap over solutions for the others

Exit status: 0 done; 1 some solutions got no verdict (they count as wrong); 2 bad usage."""


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    return options.run(options)


def evaluate_arithmetic(options: argparse.Namespace) -> int:
    from thinkprm_jax.evaluation.arithmetic import arithmetic_case

    if options.problems < 1:
        raise UserError(f"--problems is {options.problems}, it must be at least 1")
    cases = [arithmetic_case(options.seed, index, options.split) for index in range(options.problems)]
    task = {"task": "arithmetic", "split": options.split, "problems": options.problems, "seed": options.seed}
    title = f"{options.problems:,} arithmetic problems (split {options.split}, seed {options.seed})"
    return evaluate(options, task, title, cases)


def evaluate(options: argparse.Namespace, task: dict[str, Any], title: str, cases: Sequence[Case]) -> int:
    """Judges the cases, reports, and returns the exit status. ``task`` says in the JSON what was judged."""
    check_writable(options.output)
    settings, load = choose_verifier(options)
    outcomes, speed = judge_all(options, settings, cases, load)

    from thinkprm_jax.evaluation.judging import break_down, summarise
    from thinkprm_jax.evaluation.report import breakdown_json, reliability_json, summary_json

    summary, groups = summarise(outcomes), break_down(outcomes)
    figures = {
        **task,
        "verifier": settings,
        **speed,
        **summary_json(summary),
        "reliability": reliability_json(outcomes),
        "by": breakdown_json(groups),
    }
    if options.output is not None and options.output != "-":
        Path(options.output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if options.output == "-":
        print(json.dumps(figures, indent=2))
    else:
        print_tables(f"{settings['model']} on {title}", figures, summary, groups)
    return int(summary.failed > 0)


def choose_verifier(options: argparse.Namespace) -> tuple[dict[str, Any], Callable[[argparse.Namespace], Any]]:
    """(settings, loader) of the kind of verifier that config.json of --model names."""
    from thinkprm_jax.verifier.kind import is_discriminative

    if is_discriminative(options.model):
        settle_discriminative(options)
        return discriminative_settings(options), load_discriminative
    settle(options)
    if options.n > 1 and options.temperature == 0:
        raise UserError(f"--n {options.n} needs --temperature above 0: greedy chains are all the same")
    return verifier_settings(options), load_verifier


def judge_all(
    options: argparse.Namespace,
    settings: dict[str, Any],
    cases: Sequence[Case],
    load: Callable[[argparse.Namespace], Any],
) -> tuple[list[Outcome], dict[str, Any]]:
    """(outcomes in the order of the cases, speed of what was judged now, compilation included)."""
    from thinkprm_jax.data.jsonl import OrderedOutput
    from thinkprm_jax.evaluation.judging import Outcome, judge
    from thinkprm_jax.progress import VerdictProgress

    rows = [case_row(index, case) for index, case in enumerate(cases)]
    with OrderedOutput(options.details, rows, {"verifier": settings}) as details:
        outcomes = {row["index"]: Outcome(**row["outcome"]) for row in details.resumed}
        missing = details.missing
        verifier = load(options) if missing else None
        tokens = 0
        with VerdictProgress(len(cases), done=len(outcomes)) as progress:
            for place, verdict, outcome in judge(verifier, [cases[i] for i in missing]) if verifier else ():
                index = missing[place]
                outcomes[index] = outcome
                details.add(index, {"outcome": dataclasses.asdict(outcome), "verdict": verdict_row(verdict)})
                tokens += outcome.tokens
                progress.advance(tokens)
                if outcome.error is not None:
                    progress.say(f"solution {index} got no verdict: {outcome.error}")
            seconds = progress.seconds
    ordered = [outcomes[index] for index in range(len(cases))]
    return ordered, speed(len(missing), sum(ordered[index].tokens for index in missing), seconds)


def speed(verdicts: int, tokens: int, seconds: float) -> dict[str, Any]:
    import jax

    return {
        "device": jax.devices()[0].device_kind,
        "judged_now": verdicts,
        "seconds": round(seconds, 3),
        "verdicts_per_second": round(verdicts / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
    }


def case_row(index: int, case: Case) -> dict[str, Any]:
    """A line of the details before it is judged: `label` as in ProcessBench."""
    return {
        "index": index,
        "problem": case.problem,
        "steps": list(case.steps),
        "label": case.first_error,
        "groups": dict(case.groups),
    }


def verdict_row(verdict: Verdict | StepVerdict) -> dict[str, Any]:
    """A verdict as in the output of `thinkprm score`."""
    if verdict.error is not None:
        return {"error": str(verdict.error)}
    row = {
        "prefix_score": verdict.prefix_score,
        "step_scores": verdict.step_scores,
        "step_labels": verdict.step_labels,
    }
    if hasattr(verdict, "chains"):
        row["chains"] = [dataclasses.asdict(chain) for chain in verdict.chains]
    return row


def print_tables(title: str, figures: dict[str, Any], summary: Any, groups: Any) -> None:
    """The figures, then their breakdowns: tables on a terminal, aligned lines in a pipe."""
    from rich.console import Console

    from thinkprm_jax.evaluation.report import breakdown_table, figures_table

    fancy = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, **({} if fancy else {"width": 200}))
    pace = (
        f"{figures['judged_now']:,} verdicts in {figures['seconds']:.1f} s, "
        f"{figures['verdicts_per_second']:.1f} verdicts/s"
    )
    if figures["tokens_per_second"]:
        pace += f", {figures['tokens_per_second']:,.0f} tokens/s"
    verifier = figures["verifier"]
    console.print(f"{title}\n{how(verifier)}, {verifier['dtype']} on {figures['device']}: {pace}\n")
    if summary.failed:
        console.print(f"{summary.failed} solutions got no verdict and count as wrong\n")
    console.print(figures_table(summary, fancy))
    console.print()
    console.print(breakdown_table(groups, fancy))


def how(verifier: dict[str, Any]) -> str:
    """The settings in words."""
    if "temperature" not in verifier:
        return "discriminative: no chains, a score a step in one pass"
    chains = "greedy" if verifier["temperature"] == 0 else f"temperature {verifier['temperature']}"
    return f"n {verifier['n']}, rounds {verifier['rounds']}, {chains}"


def check_writable(path: str | None) -> None:
    """Refuses a file that cannot be written, before hours of work and without touching it."""
    if path is None or path == "-":
        return
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{path}: is a folder")
    if not file.parent.is_dir():
        raise UserError(f"{path}: there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"{path}: cannot be written")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="thinkprm evaluate", description=ABOUT)
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    arithmetic = add_task(tasks, "arithmetic", "the synthetic task of the bundled models", ARITHMETIC)
    arithmetic.set_defaults(run=evaluate_arithmetic)
    arithmetic.add_argument("--split", choices=("test", "unseen"), default="test", help="(default: test)")
    arithmetic.add_argument("--problems", type=int, default=1000, help="how many (default: 1000)")
    return parser.parse_args(arguments)


def add_task(tasks: Any, name: str, summary: str, about: str) -> argparse.ArgumentParser:
    """A task with the options that all have."""
    parser = tasks.add_parser(
        name,
        help=summary,
        description=about,
        epilog=FIGURES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_verifier_options(parser, slots=64)
    add = parser.add_argument_group("output").add_argument
    add("--output", metavar="FILE.json", help="the figures as JSON; - prints JSON in place of the tables")
    add(
        "--details",
        type=Path,
        metavar="FILE.jsonl",
        help="every solution with its verdict; a run that was stopped goes on from it",
    )
    return parser


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm evaluate"))
