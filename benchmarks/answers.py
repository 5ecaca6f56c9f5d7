"""How far our answers agree with other programs' verdicts, and with themselves, on files that you give.

    python benchmarks/answers.py pairs PAIRS.jsonl
    python benchmarks/answers.py selection COMPLETIONS.jsonl
    python benchmarks/answers.py golds TEST.jsonl...

pairs: rows with `source`, `gold`, `pred`, `equal` (the other program's verdict) and, where they differ from the
defaults, `form` ("bare" or "text") and `options` (of which `precision` counts). selection: rows as
search-and-learn writes them, with `completions`, `scores` (a list of step scores a completion), `pred_naive@1`,
`pred_weighted@1`, `pred_maj@1` and so on. golds: test sets with their answers in `answer`, `final_answer` or
boxed in `solution`. Each answer is rewritten in three usual ways, which must be equal to it, and changed in three
small ways, which must not.

Prints a table, every row on which the two disagree, and how many pairs a second were compared.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

from thinkprm_jax.errors import UserError
from thinkprm_jax.grading.compare import (
    TIMEOUT,
    Form,
    answers_equal,
    cut_comparisons,
    equal_many,
    extract_answer,
    find_answer,
    vote_keys,
)
from thinkprm_jax.grading.keys import PRECISION
from thinkprm_jax.records.jsonl import get_field, get_texts, read_rows
from thinkprm_jax.search.voting import Strategy, aggregate, prediction_columns, select

SHOWN = 60  # characters of a text in the list of disagreements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pairs", "selection", "golds"))
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds an answer (default: %(default)s)")
    parser.add_argument("--aggregation", choices=get_args(Strategy), default="last", help="(selection)")
    options = parser.parse_args()
    if not options.timeout > 0:
        parser.error("--timeout must be greater than 0")
    if options.what != "golds" and len(options.file) > 1:
        parser.error(f"{options.what} takes one file")
    try:
        {"pairs": compare_pairs, "selection": compare_selections, "golds": compare_golds}[options.what](options)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(f"\n{cut_comparisons()} answers were cut at {options.timeout:g} s")


def compare_pairs(options: argparse.Namespace) -> None:
    agreed: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    disagreements = []
    for place, row in read_rows(options.file[0]):
        gold, prediction, equal = (
            get_field(row, name, kind, place) for name, kind in (("gold", str), ("pred", str), ("equal", bool))
        )
        form = row.get("form", "bare")
        if form not in get_args(Form):
            raise UserError(
                f"{place}: the field `form` must be one of {', '.join(get_args(Form))}, it is {form!r}"
            )
        precision = (row.get("options") or {}).get("precision", PRECISION)
        start = time.perf_counter()
        ours = answers_equal(gold, prediction, timeout=options.timeout, precision=precision, form=form)
        source = get_field(row, "source", str, place).split(":")[0]
        seconds[source] += time.perf_counter() - start
        counted[source] += 1
        agreed[source] += ours == equal
        if ours != equal:
            disagreements.append((source, shorten(gold), shorten(prediction), ours, equal))
    print_table(
        ("source", "pairs", "agree", "share", "pairs/s"),
        [
            (source, n, agreed[source], f"{agreed[source] / n:.1%}", f"{n / seconds[source]:,.0f}")
            for source, n in counted.items()
        ],
    )
    print_table(("source", "gold", "prediction", "ours", "theirs"), disagreements)


def compare_selections(options: argparse.Namespace) -> None:
    (file,) = options.file
    agreed: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    disagreements = []
    for place, row in read_rows(file):
        answers = [extract_answer(text) for text in get_texts(row, "completions", place)]
        scores = [aggregate(steps, options.aggregation) for steps in get_field(row, "scores", list, place)]
        if not answers or len(answers) != len(scores):
            raise UserError(f"{place}: {len(answers)} completions, but scores of {len(scores)}")
        keys = vote_keys(answers, timeout=options.timeout)
        for column, ours in prediction_columns(select(answers, keys, scores)).items():
            if column in row:
                counted[column] += 1
                agreed[column] += ours == row[column]
                if ours != row[column]:
                    disagreements.append((place, column, ours, row[column]))
    if not counted:
        raise UserError(f"{file}: no row has a field pred_naive@1 or one like it")
    print_table(("column", "rows", "agree"), [(column, n, agreed[column]) for column, n in counted.items()])
    print_table(("row", "column", "ours", "theirs"), disagreements)


def compare_golds(options: argparse.Namespace) -> None:
    table, wrong = [], []
    for file in options.file:
        golds = [gold for _, row in read_rows(file) if (gold := gold_of(row))]
        kept = [(gold, way, text) for gold in golds for way, text in rewritten(gold)]
        changed = [(gold, way, text) for gold in golds for way, text in near_misses(gold)]
        start = time.perf_counter()
        equal = equal_many([(gold, text) for gold, _, text in kept], timeout=options.timeout)
        alike = equal_many([(gold, text) for gold, _, text in changed], timeout=options.timeout)
        seconds = time.perf_counter() - start
        pairs = len(kept) + len(changed)
        table.append(
            (
                file.stem,
                len(golds),
                len(kept),
                f"{sum(equal) / max(1, len(kept)):.2%}",
                len(changed),
                f"{1 - sum(alike) / max(1, len(changed)):.2%}",
                f"{pairs / seconds:,.0f}",
            )
        )
        wrong += [(file.stem, "equal", *map(shorten, one)) for one, ok in zip(kept, equal, strict=True) if not ok]
        wrong += [(file.stem, "not", *map(shorten, one)) for one, bad in zip(changed, alike, strict=True) if bad]
    print_table(("file", "golds", "rewritten", "equal", "near misses", "not equal", "pairs/s"), table)
    print_table(("file", "right", "gold", "way", "answer"), wrong)


def gold_of(row: Mapping[str, Any]) -> str | None:
    """The gold answer of a row of the usual test sets; None where it has none."""
    answer = row.get("final_answer") or row.get("answer") or row.get("target") or row.get("Answer")
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    if answer is None or (row.get("solution") and "boxed" in str(row["solution"]) and "answer" not in row):
        found = find_answer(str(row.get("solution") or ""))
        return found.answer if found is not None and found.rule == "boxed" else None
    text = str(answer)
    return text.rpartition("####")[2].strip() or None


_NUMBER = re.compile(r"(?<![\d.,{\\])\d+(?![\d.,])")
_WHOLE = re.compile(r"\$?(-?)(\d+)\$?")
_FRACTION = re.compile(r"\$?(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}\$?")
_INNER_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_MIXED = re.compile(r"(?<![\d.])(\d+)\s*\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_INNER_ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")


def rewritten(gold: str) -> Iterator[tuple[str, str]]:
    """(way, answer): a number in another form, or the formula set in another style; typed without LaTeX; and
    boxed in a sentence, from which it is taken again."""
    yield "style", _other_style(gold)
    yield "typed", _typed(gold)
    bare = gold.strip().removeprefix("$").removesuffix("$") if gold.count("$") == 2 else gold
    yield "boxed", extract_answer(rf"So we get $\boxed{{{bare}}}$. I hope it is correct.") or ""


def _other_style(gold: str) -> str:
    whole, fraction = _WHOLE.fullmatch(gold), _FRACTION.fullmatch(gold)
    if whole and len(whole[2]) < 300:
        return f"{whole[1]}{int(whole[2]):,}.0"
    if fraction and int(fraction[3]):
        value = Fraction(int(fraction[2]), int(fraction[3]))
        decimal = f"{fraction[1]}{float(value):.9f}".rstrip("0")
        return (
            decimal
            if Fraction(decimal) == value
            else f"{fraction[1]}{2 * value.numerator}/{2 * value.denominator}"
        )
    text = re.sub(r"\\frac(?![a-z])", r"\\dfrac", gold)
    if r"\left" not in text:
        text = re.sub(r"(?<!\\)([(\[])", r"\\left\1", re.sub(r"(?<!\\)([)\]])", r"\\right\1", text))
    return _without_marks(re.sub(r"(?<![\^_{(\[=,|eE])([+=])", r" \1 ", text)) + "."


def _without_marks(text: str) -> str:
    """Without mathematics marks; `\\$40` is money."""
    return re.sub(r"(?<!\\)\$", "", text)


def _typed(gold: str) -> str:
    text = re.sub(r"\\(?:left|right)(?![a-z])", "", _without_marks(gold))
    text = _MIXED.sub(r"\1 \2/\3", text)
    while (match := _INNER_FRACTION.search(text)) is not None:
        text = f"{text[: match.start()]}(({match[1]})/({match[2]})){text[match.end() :]}"
    text = _INNER_ROOT.sub(r" sqrt(\1)", text)
    text = re.sub(r"\\pi(?![a-z])", " pi ", text)
    text = re.sub(r"\\cdot(?![a-z])", "*", text)
    text = re.sub(r"\\le(?:q|qslant)?(?![a-z])", "<=", text)
    return re.sub(r"\\ge(?:q|qslant)?(?![a-z])", ">=", text)


def near_misses(gold: str) -> Iterator[tuple[str, str]]:
    """(way, answer): the last number one more, the first one more, the sign of the whole changed; of words, one
    word more, one letter more, and the last letter gone."""
    numbers = list(_NUMBER.finditer(gold))
    if not numbers:
        yield "word more", f"not {gold}"
        yield "letter more", re.sub(r"([A-Za-z0-9])(?=[^A-Za-z0-9]*$)", r"\1x", gold, count=1) + "y"
        yield "other", f"{gold} 7"
        return
    for way, match in (("last number", numbers[-1]), ("first number", numbers[0])):
        yield way, f"{gold[: match.start()]}{int(match[0]) + 1}{gold[match.end() :]}"
    yield "one more number", f"{gold}, 77"


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
