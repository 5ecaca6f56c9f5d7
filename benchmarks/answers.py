"""How far our answers agree with other programs' verdicts, on files that you give.

    python benchmarks/answers.py pairs PAIRS.jsonl
    python benchmarks/answers.py selection COMPLETIONS.jsonl

pairs: rows with `source`, `gold`, `pred`, `equal` (the other program's verdict) and, where they differ from the
defaults, `form` ("bare" or "text") and `options` (MathOptions). selection: rows as search-and-learn writes them,
with `completions`, `scores` (a list of step scores a completion), `pred_naive@1`, `pred_weighted@1`, `pred_maj@1`
and so on.

Prints a table, and every row on which the two disagree.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from thinkprm_jax.errors import UserError
from thinkprm_jax.grading.compare import (
    TIMEOUT,
    Form,
    MathOptions,
    answers_equal,
    canonical_many,
    cut_comparisons,
    extract_answer,
)
from thinkprm_jax.records.jsonl import get_field, get_texts, read_rows
from thinkprm_jax.search.voting import Strategy, aggregate, prediction_columns, select

SHOWN = 60  # characters of a text in the list of disagreements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pairs", "selection"))
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, help="seconds a comparison (default: %(default)s)"
    )
    parser.add_argument("--aggregation", choices=get_args(Strategy), default="last", help="(selection)")
    options = parser.parse_args()
    if not options.timeout > 0:
        parser.error("--timeout must be greater than 0")
    try:
        (compare_pairs if options.what == "pairs" else compare_selections)(options)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(f"\n{cut_comparisons()} comparisons or canonical forms were cut at {options.timeout:g} s")


def compare_pairs(options: argparse.Namespace) -> None:
    answers_equal("x+1", "1+x")  # the worker's start is not a comparison's time
    agreed: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    disagreements = []
    for place, row in read_rows(options.file):
        gold, prediction, equal = (
            get_field(row, name, kind, place) for name, kind in (("gold", str), ("pred", str), ("equal", bool))
        )
        form = row.get("form", "bare")
        if form not in get_args(Form):
            raise UserError(
                f"{place}: the field `form` must be one of {', '.join(get_args(Form))}, it is {form!r}"
            )
        maths = MathOptions.of(row.get("options"), place)
        start = time.perf_counter()
        ours = answers_equal(gold, prediction, timeout=options.timeout, options=maths, form=form)
        source = get_field(row, "source", str, place).split(":")[0]
        seconds[source] += time.perf_counter() - start
        counted[source] += 1
        agreed[source] += ours == equal
        if ours != equal:
            disagreements.append((source, shorten(gold), shorten(prediction), ours, equal))
    print_table(
        ("source", "pairs", "agree", "share", "ms a pair"),
        [
            (source, n, agreed[source], f"{agreed[source] / n:.1%}", f"{1000 * seconds[source] / n:.1f}")
            for source, n in counted.items()
        ],
    )
    print_table(("source", "gold", "prediction", "ours", "theirs"), disagreements)


def compare_selections(options: argparse.Namespace) -> None:
    agreed: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    disagreements = []
    for place, row in read_rows(options.file):
        answers = [extract_answer(text) for text in get_texts(row, "completions", place)]
        scores = [aggregate(steps, options.aggregation) for steps in get_field(row, "scores", list, place)]
        if not answers or len(answers) != len(scores):
            raise UserError(f"{place}: {len(answers)} completions, but scores of {len(scores)}")
        keys = canonical_many(answers, timeout=options.timeout)
        for column, ours in prediction_columns(select(answers, keys, scores)).items():
            if column in row:
                counted[column] += 1
                agreed[column] += ours == row[column]
                if ours != row[column]:
                    disagreements.append((place, column, ours, row[column]))
    if not counted:
        raise UserError(f"{options.file}: no row has a field pred_naive@1 or one like it")
    print_table(("column", "rows", "agree"), [(column, n, agreed[column]) for column, n in counted.items()])
    print_table(("row", "column", "ours", "theirs"), disagreements)


def shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else "…" + text[-SHOWN:]


def print_table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    print()
    for row in (head, ("---",) * len(head), *rows):
        print("|", " | ".join(str(cell).replace("|", "\\|") for cell in row), "|")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
