"""PRM800K (Lightman et al., 2023; github.com/openai/prm800k): human step labels of solutions of MATH problems.

A row is one labelling of one problem. `label.steps[i].completions` holds candidates for step i, each with a
rating: 1 (correct), 0 (neutral: no mistake, no progress), -1 (incorrect) or null (not rated). In phase 1 a person
chose the candidate to go on from (`chosen_completion`), or wrote a better one (`human_completion`), so the chosen
path has no error and the rejected candidates are the errors. In phase 2 whole solutions were generated first
(`question.pre_generated_steps`), and labelled from the first step to the first error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.records.datasets import iterate_objects
from thinkprm_jax.records.jsonl import get_field, type_name

RATINGS = {1: 1, 0: 1, -1: 0}  # rating -> label; neutral steps count as correct
_FINISHES = ("solution", "found_error", "give_up", "bad_problem")


@dataclass(frozen=True)
class Prefix:
    """The beginning of a solution, or all of it, with a human label for each step.

    labels: 1 correct, 0 incorrect, as many as steps; only the last can be 0.
    source: where it is from (`phase2_train.jsonl:17`), for reports.
    """

    problem: str
    steps: list[str]
    labels: list[int]
    source: str

    @property
    def correct(self) -> bool:
        return 0 not in self.labels

    @property
    def place(self) -> str:
        """Its name in messages."""
        return self.source


@dataclass
class Prm800kCounts:
    """What a reading met. Rows and paths that give no prefix are counted by reason."""

    rows: int = 0
    prefixes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def read_prm800k(
    path: str | Path, *, alternatives: bool = False, counts: Prm800kCounts | None = None
) -> Iterator[Prefix]:
    """The labelled path of every row of a JSON Lines file, either phase, read line by line (phase 2 is 400 MB).

    The path is followed while a step has a chosen candidate, a person's own text (which counts as correct: it was
    written because no candidate was), or, in phase 2, the pre-generated step with its rating. It ends at the first
    incorrect step, which belongs to it, or before the first step without a rating. Rows marked as a bad problem
    and rows without a single labelled step give nothing.

    Args:
      alternatives: also the rejected candidates: for each with a rating, the path before it and the candidate.
        Without them phase 1 has hardly any error.
      counts: is filled.
    Raises:
      UserError: the file cannot be read, or a row is not as described; names file, line and field.
    """
    counts = Prm800kCounts() if counts is None else counts
    for place, row in iterate_objects(str(path)):
        counts.rows += 1
        with reading(place):
            found = list(parse_row(row, place, alternatives=alternatives))
        if not found:
            bad = row["label"].get("finish_reason") == "bad_problem"
            counts.dropped["bad problem" if bad else "no labelled step"] += 1
        counts.prefixes += len(found)
        yield from found
    if not counts.rows:
        raise UserError(f"{path}: no rows in it")


def parse_row(row: Mapping[str, Any], place: str, *, alternatives: bool = False) -> Iterator[Prefix]:
    """The path of one row, preceded by the rejected candidates along it where these are asked for."""
    question, label = get_field(row, "question", dict, place), get_field(row, "label", dict, place)
    problem = get_field(question, "problem", str, place, "question.")
    stages = get_field(label, "steps", list, place, "label.")
    finish = label.get("finish_reason")
    if finish is not None and finish not in _FINISHES:
        raise UserError(f"{place}: label.finish_reason is {json.dumps(finish)}, none of {', '.join(_FINISHES)}")
    planned = question.get("pre_generated_steps") or []
    if not isinstance(planned, list):
        raise UserError(f"{place}: question.pre_generated_steps must be a list, it is {type_name(planned)}")
    if finish == "bad_problem":
        return
    steps: list[str] = []
    labels: list[int] = []
    for index, stage in enumerate(stages):
        where = f"label.steps[{index}]."
        if not isinstance(stage, dict):
            raise UserError(f"{place}: {where[:-1]} must be an object, it is {type_name(stage)}")
        candidates = _candidates(stage, place, where)
        taken = _taken(stage, candidates, planned[index] if index < len(planned) else None, place, where)
        if alternatives:
            for number, (text, mark) in enumerate(candidates):
                if number != taken and mark is not None:
                    yield Prefix(problem, [*steps, text], [*labels, mark], place)
        step, label = _step(stage, candidates, taken, place, where)
        if step is None or label is None:
            break
        steps.append(step)
        labels.append(label)
        if not label:
            break
    if steps:
        yield Prefix(problem, steps, labels, place)


def _candidates(stage: Mapping[str, Any], place: str, where: str) -> list[tuple[str, int | None]]:
    """(text, label or None where it is not rated) of each completion."""
    completions = stage.get("completions")
    if completions is None:
        return []
    found = []
    for number, completion in enumerate(get_field(stage, "completions", list, place, where)):
        name = f"{where}completions[{number}]"
        if not isinstance(completion, dict):
            raise UserError(f"{place}: {name} must be an object, it is {type_name(completion)}")
        rating = completion.get("rating")
        if rating is not None and (isinstance(rating, bool) or rating not in RATINGS):
            raise UserError(f"{place}: {name}.rating is {json.dumps(rating)}; it must be 1, 0, -1 or null")
        found.append(
            (get_field(completion, "text", str, place, name + "."), None if rating is None else RATINGS[rating])
        )
    return found


def _taken(
    stage: Mapping[str, Any], candidates: list[tuple[str, int | None]], planned: Any, place: str, where: str
) -> int | None:
    """Index of the candidate on the path: the chosen one; else, in phase 2, the step of the generated solution."""
    chosen = stage.get("chosen_completion")
    if chosen is not None:
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(candidates):
            there = f"there are {len(candidates)} completions"
            raise UserError(f"{place}: {where}chosen_completion is {json.dumps(chosen)}, {there}")
        return chosen
    if stage.get("human_completion") is None and planned is not None:
        return next((number for number, (text, _) in enumerate(candidates) if text == planned), None)
    return None


def _step(
    stage: Mapping[str, Any], candidates: list[tuple[str, int | None]], taken: int | None, place: str, where: str
) -> tuple[str | None, int | None]:
    """(text, label) by which the path goes on; None where it does not, or where nobody rated it."""
    if taken is not None:
        return candidates[taken]
    if stage.get("human_completion") is None:
        return None, None
    human = get_field(stage, "human_completion", dict, place, where)
    return get_field(human, "text", str, place, where + "human_completion."), 1
