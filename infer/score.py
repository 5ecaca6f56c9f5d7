"""`thinkprm score`: solutions in, verdicts out.

Each input row becomes one output row: all its fields, `verdict` (or `verdicts`, one for each of its `completions`)
and `verifier`, the settings that made it: see :class:`thinkprm_jax.records.VerdictRow`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.infer.verifier_options import add_verifier_options, choose_verifier
from thinkprm_jax.records.inputs import SolutionRow, read_solutions
from thinkprm_jax.records.output import OrderedOutput
from thinkprm_jax.records.verdicts import VerdictRecord, VerdictRow

if TYPE_CHECKING:
    from thinkprm_jax.infer.score_report import Report
    from thinkprm_jax.verifier.base import Verifier

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
    from thinkprm_jax.verifier.registry import current_stamp, load_verifier

    settings = choose_verifier(options)
    given = [row.row for row in rows]
    with OrderedOutput(options.output, VerdictRow, given, {"verifier": settings.stamp}, current_stamp) as output:
        report = Report(rows, output.resumed, source=str(options.output), quiet=options.quiet)
        if output.missing:
            with report.loading(settings.model or settings.kind):
                verifier = load_verifier(settings)
            with report.judging(verifier):
                score(verifier, rows, output, report)
        report.summary()
    return 1 if report.failed else 0


def score(
    verifier: Verifier, rows: Sequence[SolutionRow], output: OrderedOutput[VerdictRow], report: Report
) -> None:
    """Judges what ``output`` still misses, and gives each row to it once all its solutions are judged."""
    stamp = verifier.settings.stamp
    open_rows = {index: dict[int, VerdictRecord]() for index in output.missing}
    places = [(index, number) for index in open_rows for number in range(len(rows[index].solutions))]

    def finish(index: int) -> None:
        verdicts = open_rows.pop(index)
        judged = VerdictRow(rows[index], tuple(verdicts[number] for number in sorted(verdicts)), stamp)
        for place, row in output.add(index, judged):
            report.show(place + 1, row)

    for index in output.missing:
        if not rows[index].solutions:
            finish(index)  # a row without completions
    items = ((rows[index].problem, rows[index].solutions[number]) for index, number in places)
    for item, verdict in verifier.verify(items):
        index, number = places[item]
        given = rows[index]
        shown = None if given.source == "steps" else given.solutions[number]
        open_rows[index][number] = verdict.record(shown)
        report.judged(verdict)
        if len(open_rows[index]) == len(given.solutions):
            finish(index)


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
