"""A run from its files: the details of `thinkprm evaluate`, the output of `thinkprm score`, a folder of
`thinkprm search`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.inputs import parse_solution
from thinkprm_jax.records.jsonl import get_field, get_texts, iterate_rows, type_name
from thinkprm_jax.report.run import Problem, Run, Solution
from thinkprm_jax.report.verdicts import checked, count, probability, read_verdict

Row = Mapping[str, Any]
UNFINISHED = "the last line of {name} is half-written and left out: the run that writes it has not finished"


def load_run(path: Path) -> Run:
    """Reads a file, or the folder of a search.

    Raises:
      UserError: there is no such run, or what is wrong with it: file, line, field.
    """
    if path.is_dir():
        from thinkprm_jax.report.search_run import load_search

        return load_search(path)
    rows, notes = read_growing(path)
    if not rows:
        raise UserError(f"{path}: no rows in it")
    place, first = rows[0]
    if "outcome" in first:
        kind, parse = "evaluation", parse_details
    elif "verdict" in first or "verdicts" in first:
        kind, parse = "score", parse_score
    else:
        raise UserError(
            f"{place}: neither `verdict` nor `verdicts` in it: this is no output of `thinkprm score` and no "
            "details of `thinkprm evaluate`; for a search give its folder"
        )
    problems = tuple(parse(row, place, number) for number, (place, row) in enumerate(rows, start=1))
    outcomes = [row["outcome"] for _, row in rows] if kind == "evaluation" else []
    return Run(kind, str(path), problems, _settings(first.get("verifier")), outcomes=outcomes, notes=notes)


def read_growing(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], tuple[str, ...]]:
    """(rows with their places, notes). A last line without its newline that is no JSON is one being written."""
    rows: list[tuple[str, dict[str, Any]]] = []
    try:
        for row in iterate_rows(path):
            rows.append(row)
    except UserError:
        if not _ends_half_written(path, len(rows)):
            raise
        return rows, (UNFINISHED.format(name=path.name),)
    return rows, ()


def _ends_half_written(path: Path, good: int) -> bool:
    """Whether all lines but the last have been read, and that one is not closed."""
    try:
        with open(path, "rb") as file:
            lines = [line for line in file if line.strip()]
    except OSError:
        return False
    return len(lines) == good + 1 and not lines[-1].endswith(b"\n")


def parse_details(row: Row, place: str, number: int) -> Problem:
    """A line of `thinkprm evaluate ... --details`: what was found is what the evaluation counted."""
    text = get_field(row, "problem", str, place)
    steps = tuple(get_texts(row, "steps", place))
    truth = first_error(get_field(row, "label", int, place), len(steps), place, "label")
    outcome = check_outcome(get_field(row, "outcome", dict, place), place)
    verdict = read_verdict(get_field(row, "verdict", object, place), steps, place, "verdict")
    predicted = get_field(outcome, "predicted", object, place, "outcome.")
    if predicted is not None:
        predicted = first_error(predicted, len(steps), place, "outcome.predicted")
    solution = Solution(steps, **{**verdict, "predicted": predicted}, truth=truth, correct=truth < 0)
    return Problem(problem_name(row, number), text, (solution,), groups=read_groups(row, place))


def check_outcome(outcome: Row, place: str) -> Row:
    """The outcome, with numbers where the figures need them."""
    if outcome.get("score") is not None:
        probability(outcome["score"], place, "outcome.score")
    for name in ("first_error", "readable", "chains", "steps_right", "steps_counted", "tokens"):
        count(outcome.get(name), place, f"outcome.{name}")
    return outcome


def parse_score(row: Row, place: str, number: int) -> Problem:
    """A line of `thinkprm score`: one verdict, or one for each completion."""
    given = parse_solution(dict(row), place)
    many = given.source == "completions"
    verdicts = get_field(row, "verdicts", list, place) if many else [get_field(row, "verdict", object, place)]
    if len(verdicts) != len(given.solutions):
        raise UserError(
            f"{place}: the field `verdicts` has {len(verdicts)} for {len(given.solutions)} completions"
        )
    truth = row.get("label") if not many else None  # of one solution; of completions it would not say which
    solutions = []
    for index, (steps, verdict) in enumerate(zip(given.solutions, verdicts, strict=True)):
        fields = read_verdict(verdict, steps, place, f"verdicts[{index}]" if many else "verdict")
        solutions.append(Solution(steps, **fields))
    if isinstance(truth, int) and not isinstance(truth, bool) and -1 <= truth < len(solutions[0].steps):
        solutions = [dataclasses.replace(solutions[0], truth=truth, correct=truth < 0)]
    answer = row.get("answer")
    return Problem(
        problem_name(row, number), given.problem, tuple(solutions), None if answer is None else str(answer)
    )


def read_groups(row: Row, place: str) -> dict[str, str]:
    groups = get_field(row, "groups", dict, place) if "groups" in row else {}
    return {name: checked(group, str, "a text", place, f"groups.{name}") for name, group in groups.items()}


def first_error(value: Any, steps: int, place: str, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < steps:
        what = value if isinstance(value, (int, float)) else type_name(value)
        raise UserError(f"{place}: the field `{name}` must be a step from 0 to {steps - 1}, or -1; it is {what}")
    return value


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    return checked(value, dict, "an object", str(path), "(the whole file)")


def settings_table(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(name): value if isinstance(value, str) else json.dumps(value, default=str)
        for name, value in settings.items()
    }


def _settings(verifier: Any) -> dict[str, str]:
    return settings_table(verifier) if isinstance(verifier, Mapping) else {}


def problem_name(row: Row, number: int) -> str:
    for key in ("id", "unique_id"):
        if isinstance(row.get(key), (str, int)):
            return str(row[key])
    return str(number)
