"""A verification chain with its labels, and reading chains from files and data sets.

A row that is not as described (a column is missing, a type is wrong) is a mistake of the file: a UserError. A row
that is well formed but nothing to learn from (a chain without verdicts, verdicts that the labels contradict) is
left out, named and counted by reason: :class:`ChainReport`.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import RequestError, UserError, reading
from thinkprm_jax.protocol.prompts import QUESTION, training_chain
from thinkprm_jax.protocol.reading import read_chain
from thinkprm_jax.records.datasets import iterate_source
from thinkprm_jax.records.jsonl import get_field, get_texts, type_name

logger = logging.getLogger(__name__)

# Why a row is left out.
NO_VERDICT = "no verdict"
OTHER_VERDICT = "verdicts disagree with the labels"
BAD_LABELS = "labels disagree with one another"
TOO_LONG = "too long"
NOT_ENCODABLE = "cannot be encoded"

_NAMED = 20  # rows that are left out and named one by one
_ANSWER = re.compile(rf"{re.escape(QUESTION)}\s*(Yes|No)\s*(?:<｜end▁of▁sentence｜>)?\s*\Z")


@dataclass(frozen=True)
class LabelledChain:
    """One training or test example.

    problem, steps: as the prompt shows them; steps may be the beginning of a solution.
    chain: the text between `<think>` and `</think>`.
    labels: for each step 1 (correct so far) or 0; once 0, always 0.
    correct: whether all given steps are.
    place: where it was read (`chains.jsonl:12`), for messages.
    """

    problem: str
    steps: list[str]
    chain: str
    labels: list[int]
    correct: bool
    place: str = field(default="", compare=False)


class LeftOut(RequestError):
    """A row or example that cannot be trained on. reason: one of a few, for counting; detail: of this one."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass
class ChainReport:
    """What was read, and what was left out why.

    rows: read. reasons: rows left out, by reason. named: (place, reason, detail) of the first ones, also logged.
    """

    name: str = "data"
    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    named: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        return self.reasons.total()

    def leave_out(self, place: str, why: LeftOut) -> None:
        self.reasons[why.reason] += 1
        if len(self.named) < _NAMED:
            self.named.append((place, why.reason, why.detail))
            logger.warning("%s: %s is left out: %s", self.name, place, why)
        elif self.left_out == _NAMED + 1:
            logger.warning("%s: more rows are left out; from here on they are only counted", self.name)

    def summary(self) -> str:
        """`chains.jsonl: 1,000 rows, 3 left out (2 too long, 1 no verdict)`."""
        counts = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
        return f"{self.name}: {self.rows:,} rows, {self.left_out:,} left out" + (f" ({counts})" if counts else "")


def read_chains(
    source: str | Path, split: str = "train", report: ChainReport | None = None
) -> list[LabelledChain]:
    """:func:`iterate_chains` as a list."""
    return list(iterate_chains(source, split, report))


def iterate_chains(
    source: str | Path, split: str = "train", report: ChainReport | None = None, verdicts: bool = True
) -> Iterator[LabelledChain]:
    """Rows in the columns of launch/thinkprm-1K-verification-cots, but for those that cannot be trained on.

    Columns: problem, cot, prefix_steps (list of texts), gt_step_labels (list of "+" and "-", at least up to the
    first "-"), prefix_label (true or false). Others are not needed (prefix: the same steps as one text).

    Args:
      source: a JSON Lines file; a JSON file with a list; a parquet file; a pattern of such files (`part-*.jsonl`),
        read in the order of their names; a folder as `datasets` saves or loads it; or the id of a data set on the
        Hugging Face Hub (`owner/name`, or `owner/name@revision`).
      split: of a folder or a data set of the hub.
      report: is told how many rows there were, and which are left out.
      verdicts: whether those in the chains are read and compared with the labels, which takes nearly all of the
        time; if not, :func:`check_verdicts` is left to the caller.
    Raises:
      UserError: the source cannot be read, a row is not as described (names file, line or row, and field), or no
        row can be used.
    """
    report = ChainReport(str(source)) if report is None else report
    found = False
    for place, row in iterate_source(str(source), split):
        report.rows += 1
        try:
            with reading(place):
                chain = parse_chain(row, place, verdicts)
        except LeftOut as why:
            report.leave_out(place, why)
            continue
        found = True
        yield chain
    if not report.rows:
        raise UserError(f"{source}: no chains in it")
    if report.left_out:
        logger.warning("%s", report.summary())
    if not found:
        raise UserError(f"{report.summary()}: nothing to train on")


def parse_chain(row: Any, place: str, verdicts: bool = True) -> LabelledChain:
    """One row; `place` names it in errors (`chains.jsonl:12`). verdicts: see :func:`iterate_chains`.

    Labels after the first "-" do not count, and may be missing.

    Raises:
      UserError: a column is missing or of a wrong type. LeftOut: the row cannot be trained on.
    """
    if not isinstance(row, dict):
        raise UserError(f"{place}: a row is an object, not {type_name(row)}")
    problem = get_field(row, "problem", str, place)
    cot = get_field(row, "cot", str, place)
    steps = _some_texts(row, "prefix_steps", place)
    marks = _some_texts(row, "gt_step_labels", place)
    correct = get_field(row, "prefix_label", bool, place)
    for index, mark in enumerate(marks):
        if mark not in ("+", "-"):
            raise UserError(f'{place}: gt_step_labels[{index}] is {json.dumps(mark)}; it must be "+" or "-"')
    errors = "-" in marks
    if len(marks) > len(steps) or (len(marks) < len(steps) and not errors):
        raise LeftOut(BAD_LABELS, f"gt_step_labels has {len(marks)} labels for {len(steps)} steps")
    if correct == errors:
        holds = 'a "-"' if errors else 'no "-"'
        raise LeftOut(BAD_LABELS, f"prefix_label is {json.dumps(correct)}, but gt_step_labels has {holds}")
    first_error = marks.index("-") if errors else len(steps)
    labels = [int(index < first_error) for index in range(len(steps))]
    chain = LabelledChain(problem, steps, training_chain(cot), labels, correct, place)
    if verdicts:
        check_verdicts(chain)
    answer = _ANSWER.search(cot)
    if answer and (answer[1] == "Yes") != correct:
        raise LeftOut(OTHER_VERDICT, f"the chain ends with {answer[1]}, prefix_label is {json.dumps(correct)}")
    return chain


def check_verdicts(chain: LabelledChain) -> None:
    """Every step up to and including the first error has a verdict in the chain, and it is the label.

    Raises:
      LeftOut: not so; names the step.
    """
    read = read_chain(chain.chain, len(chain.steps))
    needed = chain.labels.index(0) + 1 if 0 in chain.labels else len(chain.labels)
    words = {1: "correct", 0: "incorrect"}
    for step, (label, verdict) in enumerate(zip(chain.labels[:needed], read.labels, strict=False), start=1):
        if verdict is None:
            raise LeftOut(NO_VERDICT, f"step {step} of {len(chain.steps)} has none in the chain")
        if verdict != label:
            detail = f"step {step} is {words[verdict]} in the chain, {words[label]} by its label"
            raise LeftOut(OTHER_VERDICT, detail)


def _some_texts(row: Mapping[str, Any], name: str, place: str) -> list[str]:
    values = get_texts(row, name, place)
    if not values:
        raise UserError(f"{place}: the field `{name}` is empty")
    return values
