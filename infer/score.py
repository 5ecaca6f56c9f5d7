"""`thinkprm score`: solutions in, verdicts out.

Each input row becomes one output row: all its fields, `verdict` (or `verdicts`, one for each of its `completions`)
and `verifier`, the settings that made it. A verdict holds prefix_score, step_scores (means over the chains),
step_labels, the chains themselves, and the steps where a whole solution was split; or `error` alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.infer.verifier_options import add_verifier_options, load_verifier, settle, verifier_settings

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.inputs import SolutionRow, read_solutions
from thinkprm_jax.records.jsonl import OrderedOutput

if TYPE_CHECKING:
    from thinkprm_jax.infer.score_report import Report

    from thinkprm_jax.verifier.thinkprm import ThinkPRM, Verdict

RESERVED = ("verdict", "verdicts", "verifier")
ABOUT = """\
Judges solutions of maths problems: writes a verification chain for each, reads a verdict and a score for every
step, and the probability that the whole solution is correct."""
MORE = """\
input: one JSON object a line with `problem` (or `question`) and `steps` (a list), `completions` (a list of whole
solutions) or `solution` (one whole solution). Rows of ProcessBench and of search-and-learn are taken as they are.

A run that was stopped, even by kill -9, goes on where it was when the same command is given again.
Exit status: 0 done; 1 some solutions could not be judged (the output says why); 2 bad usage or input.

The bundled model `mini` knows word problems and expressions of one to four steps, one operation a step: sums and
differences of whole numbers below 200, products of a one-digit and a one- or two-digit number up to 198, and 10%,
20%, 25% and 50% of whole numbers. About anything else its verdicts mean nothing: see
thinkprm_jax/bundled/mini/README.md. For real mathematics give --model launch/ThinkPRM-1.5B, -7B or -14B.

Compiled programs are kept in the user's cache folder: THINKPRM_JAX_CACHE=FOLDER or =off changes that."""


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    # What is wrong with the input is said before anything is loaded or computed.
    rows = read_solutions(bundled_examples() if options.input is None else options.input, RESERVED)
    if options.output and options.input and _is_same_file(options.output, options.input):
        raise UserError(f"{options.output}: is the input")

    from thinkprm_jax.infer.score_report import Report

    settle(options)
    stamp = {"verifier": verifier_settings(options)}
    with OrderedOutput(options.output, [row.row for row in rows], stamp) as output:
        report = Report(rows, output.resumed, source=str(options.output), quiet=options.quiet)
        if output.missing:
            with report.loading(options.model):
                prm = load_verifier(options)
            with report.judging(prm):
                score(prm, rows, output, report)
        report.summary()
    return 1 if report.failed else 0


def score(prm: ThinkPRM, rows: Sequence[SolutionRow], output: OrderedOutput, report: Report) -> None:
    """Judges what ``output`` still misses, and gives each row to it once all its solutions are judged."""
    open_rows: dict[int, list[Any]] = {index: [None] * len(rows[index].solutions) for index in output.missing}
    places = [(index, number) for index, verdicts in open_rows.items() for number in range(len(verdicts))]

    def finish(index: int) -> None:
        verdicts = open_rows.pop(index)
        many = rows[index].source == "completions"
        for place, row in output.add(index, {"verdicts": verdicts} if many else {"verdict": verdicts[0]}):
            report.show(place + 1, row)

    for index in [index for index, verdicts in open_rows.items() if not verdicts]:
        finish(index)  # a row without completions
    items = ((rows[index].problem, rows[index].solutions[number]) for index, number in places)
    for item, verdict in prm.verify(items):
        index, number = places[item]
        open_rows[index][number] = verdict_fields(verdict, rows[index], number)
        report.judged(verdict)
        if None not in open_rows[index]:
            finish(index)


def verdict_fields(verdict: Verdict, row: SolutionRow, number: int) -> dict[str, Any]:
    """A verdict as it stands in the output."""
    steps = {} if row.source == "steps" else {"steps": list(row.solutions[number])}
    if verdict.error is not None:
        return {"error": str(verdict.error), **steps}
    return {
        "prefix_score": verdict.prefix_score,
        "step_scores": verdict.step_scores,
        "step_labels": verdict.step_labels,
        **steps,
        "chains": [dataclasses.asdict(chain) for chain in verdict.chains],
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="thinkprm score", description=ABOUT, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", nargs="?", metavar="INPUT.jsonl", help="without it: the bundled examples")
    parser.add_argument(
        "--output", type=Path, metavar="OUT.jsonl", help="one line for each input line, in input order"
    )
    parser.add_argument("--quiet", action="store_true", help="no verdicts and no progress bar on the screen")
    add_verifier_options(parser)
    return parser.parse_args(arguments)


def bundled_examples() -> Path:
    import thinkprm_jax

    return Path(thinkprm_jax.__file__).parent / "bundled" / "examples.jsonl"


def _is_same_file(a: str | Path, b: str | Path) -> bool:
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm score"))
