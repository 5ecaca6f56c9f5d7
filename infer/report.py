"""`thinkprm report`: a run of a verifier or of a search as one HTML page that a person can read."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import check_output
from thinkprm_jax.storage import Location, same_file
from thinkprm_jax.views.places import place_option

ABOUT = """\
Makes one HTML page of a run: every problem, its steps coloured by score, the chains beside them with their
verdicts marked, filters, search, and the figures with their plots. The page is a single file and loads nothing
from anywhere."""
MORE = """\
RUN is one of
  FOLDER       of `thinkprm search` (its output_dir); of a search that still runs, what there is
  FILE.jsonl   the details of `thinkprm evaluate TASK --details FILE.jsonl`
  FILE.jsonl   the output of `thinkprm score --output FILE.jsonl`

Any browser of 2023 or later shows the page; without JavaScript it shows the first 20 problems.
Exit status: 0 done; 2 bad usage or input."""

NO_FORMULAS = 'formulas are shown as TeX; pip install "thinkprm-jax[report]" has them drawn'


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    output = options.output or default_output(options.run)
    check_output(output)
    if same_file(output, options.run):
        raise UserError(f"{output}: is the run itself; give another --output")

    from thinkprm_jax.records.files import atomic_write
    from thinkprm_jax.report.mathematics import can_convert
    from thinkprm_jax.report.page import render, summary
    from thinkprm_jax.report.sources import load_run

    run = load_run(options.run)
    if not can_convert():
        run = dataclasses.replace(run, notes=(*run.notes, NO_FORMULAS))
    page = render(run, options.title).encode("utf-8")
    atomic_write(output, page)
    for note in run.notes:
        print(f"thinkprm report: {note}", file=sys.stderr)
    print(f"{output}: {summary(run)}, {len(page) / 1e6:.1f} MB")
    return 0


def default_output(run: Location) -> Location:
    """report.html in a folder; FILE.html beside FILE.jsonl."""
    return run / "report.html" if run.is_dir() else run.with_suffix(".html")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="thinkprm report",
        description=ABOUT,
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=place_option, metavar="RUN", help="a folder or a file, see below")
    parser.add_argument(
        "--output",
        type=place_option,
        metavar="FILE.html",
        help="(default: report.html in the folder, or beside the file)",
    )
    parser.add_argument("--title", help="of the page (default: the kind of run and its name)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    program.start(main, "thinkprm report")
