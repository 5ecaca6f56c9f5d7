"""The folder of a search: completions.jsonl, verdicts.jsonl, recipe.yaml, accuracy.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.records.jsonl import get_field, get_texts
from thinkprm_jax.report.run import Pick, Problem, Run, Solution
from thinkprm_jax.report.sources import problem_name, read_groups, read_growing, read_json, settings_table
from thinkprm_jax.report.verdicts import checked, count, probability, read_verdict, text_or_none
from thinkprm_jax.search.results import ACCURACY, COMPLETIONS, RECIPE, VERDICTS
from thinkprm_jax.search.voting import select

Row = Mapping[str, Any]


def load_search(folder: Path) -> Run:
    """A run that has finished or still goes on.

    Raises:
      UserError: no search has written here, or what is wrong: file, line, field.
    """
    path = folder / COMPLETIONS
    if not path.exists():
        raise UserError(f"{folder}: there is no {COMPLETIONS} in it, so no search has finished a problem here")
    rows, notes = read_growing(path)
    verdicts: list[tuple[str, dict[str, Any]]] = []
    if (folder / VERDICTS).exists():
        verdicts, more = read_growing(folder / VERDICTS)
        notes += more
    else:
        notes += (f"there is no {VERDICTS}: no steps and no chains of the verifier can be shown",)
    if not rows:
        raise UserError(f"{path}: no rows in it")
    problems = []
    for number, (given, judged) in enumerate(zip_longest(rows, verdicts), start=1):
        if given is None:  # the verdicts are written first; the problem itself comes with the run's next start
            break
        problems.append(parse_problem(given, judged, number))
    accuracy = read_json(folder / ACCURACY)
    if accuracy is None:
        notes += (f"there is no {ACCURACY}: the search has not finished, and the page counts what there is",)
    return Run("search", str(folder), tuple(problems), _recipe(folder / RECIPE), accuracy, notes=notes)


def parse_problem(given: tuple[str, Row], judged: tuple[str, Row] | None, number: int) -> Problem:
    """One line of each file; they must be about the same problem."""
    place, row = given
    texts = get_texts(row, "completions", place)
    verdicts: Sequence[Any] = [None] * len(texts)
    if judged is not None:
        if judged[1].get("index") != row.get("index"):
            raise UserError(f"{judged[0]}: the field `index` is not that of {place}: the files are of two runs")
        if judged[1].get("verdicts") != []:  # empty where nothing was judged
            verdicts = per_completion(judged[1], "verdicts", texts, judged[0]) or verdicts
    columns = {name: per_completion(row, name, texts, place) for name in _COLUMNS}
    solutions = tuple(
        parse_completion(text, index, verdicts[index], columns, place, judged[0] if judged else place)
        for index, text in enumerate(texts)
    )
    answer = row.get("answer")
    return Problem(
        name=problem_name(row, number),
        text=get_field(row, "problem", str, place),
        solutions=solutions,
        answer=None if answer is None else str(answer),
        picks=read_picks(row, solutions, place),
        groups=read_groups(row, place),
        error=text_or_none(row, "error", place),
    )


_COLUMNS = ("completion_tokens", "finish_reasons", "scores", "agg_scores", "answers", "correct")


def per_completion(row: Row, name: str, texts: Sequence[str], place: str) -> list[Any] | None:
    """A list as long as the completions; None where the field is missing or null."""
    if row.get(name) is None:
        return None
    values = get_field(row, name, list, place)
    if len(values) != len(texts):
        raise UserError(f"{place}: the field `{name}` has {len(values)} entries for {len(texts)} completions")
    return values


def parse_completion(
    text: str, index: int, verdict: Any, columns: Mapping[str, Any], place: str, verdict_place: str
) -> Solution:
    """One completion with its verdict, which says what its steps are; None: no verifier spoke."""

    def cell(name: str, kind: type, wanted: str) -> Any:
        value = None if columns[name] is None else columns[name][index]
        return None if value is None else checked(value, kind, wanted, place, f"{name}[{index}]")

    field = f"verdicts[{index}]"
    steps = split_solution(text)
    fields: dict[str, Any] = {}
    if verdict is not None:
        checked(verdict, dict, "an object", verdict_place, field)
        if "steps" in verdict:
            steps = get_texts(verdict, "steps", f"{verdict_place}: {field}")
        fields = read_verdict(verdict, steps, verdict_place, field)
    elif (scores := cell("scores", list, "a list")) and len(scores) == len(steps):
        fields["scores"] = tuple(probability(score, place, f"scores[{index}]") for score in scores)
    ranked = None if columns["agg_scores"] is None else columns["agg_scores"][index]
    if ranked is not None:
        fields["score"] = probability(ranked, place, f"agg_scores[{index}]")
    tokens = cell("completion_tokens", object, "a whole number")
    return Solution(
        steps=tuple(steps),
        **fields,
        correct=cell("correct", bool, "true or false"),
        answer=cell("answers", str, "a text"),
        finish=cell("finish_reasons", str, "a text"),
        tokens=count(tokens, place, f"completion_tokens[{index}]"),
    )


def read_picks(row: Row, solutions: Sequence[Solution], place: str) -> tuple[Pick, ...]:
    """What each recorded selection (`pred_weighted@4`) took: its answer, and the completions that have it.

    The record names answers, not completions; which ones they are is found as the search found it.
    """
    recorded = {name: row[name] for name in row if name.startswith("pred_") and name.partition("@")[2].isdecimal()}
    if not recorded:
        return ()
    wanted: dict[str, tuple[str, int]] = {}
    for name in recorded:
        method, n = name.removeprefix("pred_").split("@")
        if method not in _METHODS or not solutions or int(n) < 1:
            raise UserError(f"{place}: the field `{name}` is of no selection among {len(solutions)} completions")
        wanted[name] = method, min(int(n), len(solutions))  # a search of trees can end with fewer than N
    keys = [solution.answer for solution in solutions]
    scores = [solution.score for solution in solutions]
    # A search without a verifier has no scores: there "weighted" is the majority.
    votes = scores if any(score is not None for score in scores) else [1.0] * len(scores)
    selections = select(keys, keys, votes, at=sorted({n for _, n in wanted.values()}))
    picks = []
    for name, (method, n) in wanted.items():
        took = getattr(selections[n], _METHODS[method]).index
        same = [took] if method == "naive" else [at for at in range(n) if keys[at] == keys[took]]
        answer = text_or_none(row, name, place)
        picks.append(Pick(f"{_METHODS[method]}@{name.partition('@')[2]}", answer, tuple(same)))
    order = list(_METHODS.values())
    return tuple(sorted(picks, key=lambda pick: (order.index(pick.method), pick.n)))


_METHODS = {"naive": "naive", "weighted": "weighted", "maj": "majority"}


def _recipe(path: Path) -> dict[str, str]:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return settings_table(checked(recipe, dict, "a table", str(path), "(the whole file)"))
