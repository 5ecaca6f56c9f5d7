"""A verification chain with its labels, and reading chains from files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.text.prompts import training_chain


@dataclass(frozen=True)
class Chain:
    """One training or test example.

    problem, steps: as the prompt shows them; steps may be the beginning of a solution.
    chain: the text between `<think>` and `</think>`.
    labels: for each step 1 (correct so far) or 0; once 0, always 0.
    correct: whether all given steps are.
    """

    problem: str
    steps: list[str]
    chain: str
    labels: list[int]
    correct: bool


def read_chains(path: str | Path) -> list[Chain]:
    """Rows of a JSON Lines file, or of a JSON file with a list, as in launch/thinkprm-1K-verification-cots.

    Columns: problem, cot, prefix_steps (list of texts), gt_step_labels (list of "+" and "-", at least up to the
    first "-"), prefix_label (true or false). The column prefix (the same steps as one text) is not needed.

    Raises:
      UserError: the file cannot be read, or a row is not as described; names file, line (or item) and field.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    chains = [parse_chain(row, place) for place, row in _rows(path, text)]
    if not chains:
        raise UserError(f"{path}: no chains in it")
    return chains


def parse_chain(row: Any, place: str) -> Chain:
    """One row; `place` names it in errors (`chains.jsonl:12`)."""
    if not isinstance(row, dict):
        raise UserError(f"{place}: a row is an object, not {_type_name(row)}")
    problem = _field(row, "problem", str, place)
    cot = _field(row, "cot", str, place)
    steps = _texts(row, "prefix_steps", place)
    marks = _texts(row, "gt_step_labels", place)
    correct = _field(row, "prefix_label", bool, place)
    for index, mark in enumerate(marks):
        if mark not in ("+", "-"):
            raise UserError(f'{place}: gt_step_labels[{index}] is {json.dumps(mark)}; it must be "+" or "-"')
    errors = "-" in marks
    if len(marks) > len(steps) or (len(marks) < len(steps) and not errors):
        raise UserError(f"{place}: gt_step_labels has {len(marks)} labels for {len(steps)} steps")
    if correct == errors:
        holds = 'a "-"' if errors else 'no "-"'
        raise UserError(f"{place}: prefix_label is {json.dumps(correct)}, but gt_step_labels has {holds}")
    first_error = marks.index("-") if errors else len(steps)
    labels = [int(index < first_error) for index in range(len(steps))]
    return Chain(problem, steps, training_chain(cot), labels, correct)


def _rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
        yield from ((f"{path}: item {number}", row) for number, row in enumerate(rows, start=1))
        return
    # Not splitlines(): JSON text may hold line separators that are no newlines.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not JSON: {error.msg}") from error
            yield f"{path}:{number}", row


def _field(row: Mapping[str, Any], name: str, kind: type, place: str) -> Any:
    if name not in row:
        raise UserError(f"{place}: the field {name} is missing")
    value = row[name]
    if not isinstance(value, kind):
        expected = {str: "a text", bool: "true or false", list: "a list"}[kind]
        raise UserError(f"{place}: {name} must be {expected}, not {_type_name(value)}")
    return value


def _texts(row: Mapping[str, Any], name: str, place: str) -> list[str]:
    values = _field(row, name, list, place)
    if not values:
        raise UserError(f"{place}: {name} is empty")
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise UserError(f"{place}: {name}[{index}] must be a text, not {_type_name(value)}")
    return values


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")
