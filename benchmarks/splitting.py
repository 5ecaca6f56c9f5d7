"""How solutions of a data set are split into steps, on files that you give.

    python benchmarks/splitting.py steps ProcessBench/*.jsonl
    python benchmarks/splitting.py texts --field completions best_of_n_completions.jsonl

steps: rows with a list of steps (`--field`, `steps` by default). The steps are joined by blank lines, and as lines
`Step i: ...`, and split again; a row is right where the same steps come back, whatever labels and marks they began
with. texts: rows with whole solutions (`--field`, `solution` by default; a text or a list of texts). Counted are
the solutions with a step that holds half of a formula, an environment or a block of code, or with lost characters.

Prints a table, and the first rows that are not right.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.records.jsonl import get_field, get_texts, read_rows

LABEL = re.compile(r"\A[\s#*]*(?:Step\s*\d+\s*(?:[:.]|\Z|\*\*)|\d{1,3}[.)]\s)", re.IGNORECASE)
MARKS = re.compile(r"[\s*#]+")
PAIRS = ((r"(?<!\\)\\\[", r"(?<!\\)\\\]"), (r"\\begin\{", r"\\end\{"), (r"\[asy\]", r"\[/asy\]"))
SHOWN = 200  # characters of a step in the list of rows that are not right
LABEL_LENGTH = 16  # characters that a label may have, with its marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steps", "texts"))
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--field", help="of the rows")
    parser.add_argument("--show", type=int, default=3, help="rows a file that are shown (default: %(default)s)")
    options = parser.parse_args()
    try:
        for path in options.files:
            (check_steps if options.what == "steps" else check_texts)(path, options.field, options.show)
    except UserError as error:
        parser.exit(2, f"{error}\n")


def check_steps(path: Path, field: str | None, show: int) -> None:
    given = [get_texts(row, field or "steps", place) for place, row in read_rows(path)]
    joined = [come_back(steps, "\n\n".join(steps)) for steps in given]
    unlabelled = [[text for step in steps if (text := LABEL.sub("", step).strip())] for steps in given]
    labelled = [come_back(steps, with_labels(steps)) for steps in unlabelled]
    back = f"joined by blank lines {share(joined)}, as labelled lines {share(labelled)}"
    print(f"{path.name}: {len(given)} rows come back: {back}")
    wrong = [index for index, right in enumerate(joined) if not right]
    for index in wrong[:show]:
        found = split_solution("\n\n".join(given[index]))
        pairs = zip([*given[index], ""], [*found, ""], strict=False)
        step, (wanted, got) = next((k, pair) for k, pair in enumerate(pairs) if bare(pair[0]) != bare(pair[1]))
        print(f"  row {index}, step {step}\n    wanted {wanted[:SHOWN]!r}\n    got    {got[:SHOWN]!r}")


def come_back(steps: Sequence[str], text: str) -> bool:
    return [bare(step) for step in split_solution(text)] == [wanted for step in steps if (wanted := bare(step))]


def bare(step: str) -> str:
    """Without its label, its marks and its blanks."""
    return MARKS.sub("", LABEL.sub("", step))


def check_texts(path: Path, field: str | None, show: int) -> None:
    texts = [text for place, row in read_rows(path) for text in some_texts(row, field or "solution", place)]
    split = [split_solution(text) for text in texts]
    torn = [is_whole(text) and not all(map(is_whole, steps)) for text, steps in zip(texts, split, strict=True)]
    lost = [is_shorter(text, steps) for text, steps in zip(texts, split, strict=True)]
    counts = sorted(len(steps) for steps in split)
    print(
        f"{path.name}: {len(texts)} solutions, {sum(torn)} torn, {sum(lost)} with lost text; steps: median "
        f"{counts[len(counts) // 2] if counts else 0}, one step {sum(count == 1 for count in counts)}"
    )
    for index in [index for index in range(len(texts)) if torn[index] or lost[index]][:show]:
        print(f"  solution {index}: {texts[index][:SHOWN]!r}")


def some_texts(row: dict[str, Any], field: str, place: str) -> Iterator[str]:
    if isinstance(row.get(field), str):
        yield get_field(row, field, str, place)
    else:
        yield from get_texts(row, field, place)


def with_labels(steps: Sequence[str]) -> str:
    return "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, start=1))


def is_whole(text: str) -> bool:
    """As many closing marks as opening ones."""
    paired = all(len(re.findall(a, text)) == len(re.findall(b, text)) for a, b in PAIRS)
    return paired and text.count("$$") % 2 == 0 and text.count("```") % 2 == 0


def is_shorter(text: str, steps: Sequence[str]) -> bool:
    """By more than the labels."""
    missing = len("".join(text.split())) - sum(len("".join(step.split())) for step in steps)
    return missing > LABEL_LENGTH * (len(steps) + 1)


def share(right: Sequence[bool]) -> str:
    return f"{sum(right)} ({sum(right) / len(right):.1%})" if right else "-"


if __name__ == "__main__":
    main()
