"""`thinkprm score`: solutions in, verdicts out.

Each input row becomes one output row: all its fields, `verdict` (or `verdicts`, one for each of its `completions`)
and `verifier`, the settings that made it: see :class:`thinkprm_jax.records.VerdictRow`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.infer.engines import add_engine_options, choose_engine, start_engine
from thinkprm_jax.infer.job_options import add_job_options, chosen_job
from thinkprm_jax.infer.part_options import add_part_options, chosen_part
from thinkprm_jax.infer.verifier_options import add_verifier_options, choose_verifier
from thinkprm_jax.paths import check_output, check_output_folder
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.records.output import LazyInputs, OrderedOutput
from thinkprm_jax.records.output_index import read_header
from thinkprm_jax.records.verdicts import VerdictRow
from thinkprm_jax.storage import location, same_file

if TYPE_CHECKING:
    from thinkprm_jax.infer.engines import RowEngine
    from thinkprm_jax.infer.score_report import Report
    from thinkprm_jax.records.sharded_output import ShardedOutput

    Output = OrderedOutput[VerdictRow] | ShardedOutput[VerdictRow]

RESERVED = ("verdict", "verdicts", "verifier")
ABOUT = """\
Judges solutions of maths problems: writes a verification chain for each, reads a verdict and a score for every
step, and the probability that the whole solution is correct."""
MORE = """\
input: JSON Lines (also .gz and .zst) or Parquet, a pattern of such files ('rows/*.parquet'), a folder of them, or
the id of a data set of the Hugging Face Hub. A row has `problem` (or `question`) and `steps` (a list),
`completions` (a list of whole solutions) or `solution` (one whole solution). Rows of ProcessBench and of
search-and-learn are taken as they are.

A run that was stopped, even by kill -9, goes on where it was when the same command is given again. Two runs give
the same chains and labels; scores can differ in their last digits, where several workers share a CPU.
Exit status: 0 done; 1 some solutions could not be judged (the output says why); 2 bad usage or input, or a file
that cannot be written; 130 and 143 stopped by Ctrl-C or SIGTERM.

The bundled model `mini` knows word problems and expressions of one to four steps, one operation a step: sums and
differences of whole numbers below 200, products of a one-digit and a one- or two-digit number up to 198, and 10%,
20%, 25% and 50% of whole numbers. About anything else its verdicts mean nothing: see
thinkprm_jax/bundled/mini/README.md. For real mathematics give --model launch/ThinkPRM-1.5B, -7B or -14B.

Compiled programs are kept in the user's cache folder: THINKPRM_JAX_CACHE=FOLDER or =off changes that."""


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    source, part = bundled_examples() if options.input is None else options.input, chosen_part(options)
    job = chosen_job(options)
    if job is not None:
        from thinkprm_jax.infer.score_job import score_folder
        from thinkprm_jax.records.job import read_job

        if str(location(source)) == str(job.folder):
            raise UserError(f"{job.folder}: is the input")
        check_output_folder(job.folder)
        # What is wrong with a row is said when the part that it is in has its turn; others go on.
        known = read_job(job.folder).get("inputs")
        with SolutionFile(source, RESERVED, part, options.split, known, check=False) as rows:
            return score_folder(rows, options, job, score)
    if options.output is not None:
        options.output = location(options.output)
        check_output(options.output)
    # What is wrong with the input is said before anything is loaded or computed.
    known = read_header(options.output).get("inputs") if isinstance(options.output, Path) else None
    with SolutionFile(source, RESERVED, part, options.split, known) as rows:
        if options.output and any(same_file(options.output, file) for file in rows.source.files or ()):
            raise UserError(f"{options.output}: is the input")
        return score_file(rows, options)


def score_file(rows: SolutionFile, options: argparse.Namespace) -> int:
    """Returns the exit status."""
    from thinkprm_jax.infer.score_report import Report, count_row
    from thinkprm_jax.verifier.loading import with_fingerprints
    from thinkprm_jax.verifier.registry import current_stamp

    choose_engine(options)
    settings = choose_verifier(options)
    given = LazyInputs(len(rows), lambda index: rows[index].row, rows.identity)
    report = Report(rows.solutions, source=str(options.output), quiet=options.quiet)
    stamp = {"verifier": settings.stamp}
    with OrderedOutput(options.output, VerdictRow, given, stamp, current_stamp, tally=count_row) as output:
        report.begin(output.counts)
        if output.missing:
            settings = with_fingerprints(settings)
            output.check_models(verifier=settings.stamp)
            with start_engine(options, settings, report) as engine:
                score(engine, rows, output, report)
        report.summary()
    return 1 if report.failed else 0


def score(engine: RowEngine, rows: SolutionFile, output: Output, report: Report) -> None:
    """Judges what ``output`` still misses, and gives each row to it once all its solutions are judged."""
    with report.judging(engine.progress):
        for index, judged in engine.judge(rows, output.missing, report.judged):
            for place, written in output.add(index, judged.record(engine.stamp)):
                report.show(place + 1, written)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="thinkprm score", description=ABOUT, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "input",
        nargs="?",
        metavar="INPUT",
        help="a file, a pattern, a folder, the id of a data set; without it: the bundled examples",
    )
    add_part_options(parser)
    help = "one line for each row, in order: a file of JSON Lines; or FOLDER/, for its parts"
    parser.add_argument("--output", metavar="OUT.jsonl", help=help)
    parser.add_argument("--quiet", action="store_true", help="no verdicts and no progress bar on the screen")
    add_job_options(parser)
    add_engine_options(parser)
    add_verifier_options(parser)
    return parser.parse_args(arguments)


def bundled_examples() -> Path:
    import thinkprm_jax

    return Path(thinkprm_jax.__file__).parent / "bundled" / "examples.jsonl"


if __name__ == "__main__":
    program.start(main, "thinkprm score")
