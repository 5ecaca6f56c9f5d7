"""The data of a page: a small index of all problems, and parts that are unpacked only when they are looked at.

    index     what the list, its filters and its order need of every problem
    part k    whole problems in their order, about PART bytes of JSON; packed with gzip and base64 when all of them
              together are large

So the page is usable at once, however many chains the run has. All of it is untrusted text; it stands in script
elements that no browser runs, where only `<` could end the element.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.report.mathematics import formulas
from thinkprm_jax.report.run import (
    FILTERS,
    ReportChain,
    ReportProblem,
    ReportRun,
    ReportSolution,
    VerdictMark,
    chosen,
)

PART = 256 * 1024
PLAIN_UP_TO = 512 * 1024  # bytes of JSON that need no packing
EXCERPT = 220


@dataclass(frozen=True)
class PageData:
    """index: JSON. parts: JSON, or gzip in base64 where ``packed``; each safe inside a script element."""

    index: str
    parts: tuple[str, ...]
    packed: bool


def encode(run: ReportRun) -> PageData:
    """The same run gives the same bytes."""
    texts = [dump(problem_json(problem)) for problem in run.problems]
    parts: list[list[str]] = []
    part_numbers = []  # of each problem: the part it is in
    room = 0
    for text in texts:
        if room < len(text) or not parts:
            parts.append([])
            room = PART
        parts[-1].append(text)
        room -= len(text)
        part_numbers.append(len(parts) - 1)
    packed = sum(map(len, texts)) > PLAIN_UP_TO
    bodies = [f"[{','.join(part)}]" for part in parts]
    return PageData(
        dump(index_json(run, part_numbers)),
        tuple(_pack(body) for body in bodies) if packed else tuple(bodies),
        packed,
    )


def index_json(run: ReportRun, part_numbers: Sequence[int]) -> dict[str, Any]:
    """flags: those that hold of some problem; a row has one bit for each. groups: [breakdown, group, problems]."""
    flags = [(flag, [flag.holds(problem) for problem in run.problems]) for flag in FILTERS]
    flags = [(flag, held) for flag, held in flags if any(held)]
    groups = sorted({item for problem in run.problems for item in problem.groups.items()})
    numbers = {item: number for number, item in enumerate(groups)}
    rows = []
    for index, problem in enumerate(run.problems):
        bits = sum(1 << bit for bit, (_, held) in enumerate(flags) if held[index])
        rows.append(
            row_json(problem, part_numbers[index], bits, [numbers[item] for item in problem.groups.items()])
        )
    return {
        "kind": run.kind,
        "flags": [
            {"key": flag.key, "label": flag.label, "help": flag.help, "count": sum(held)} for flag, held in flags
        ],
        "groups": [[*item, sum(item in problem.groups.items() for problem in run.problems)] for item in groups],
        "rows": rows,
    }


def row_json(problem: ReportProblem, part_number: int, bits: int, groups: Sequence[int]) -> list[Any]:
    """[name, excerpt, [[score, correct] a solution], part, bits, groups, best score, disagreement, gap].

    gap: the largest distance of a score from the truth, 1 for a sure mistake.
    """
    best = chosen(problem)
    gaps = [
        abs(solution.verdict_score - solution.correct)
        for solution in problem.solutions
        if solution.verdict_score is not None and solution.correct is not None
    ]
    return [
        problem.name,
        problem.text[:EXCERPT],
        [[_short(solution.score), _flag(solution.correct)] for solution in problem.solutions],
        part_number,
        bits,
        list(groups),
        None if best is None else _short(problem.solutions[best].score),
        _short(max((solution.disagreement for solution in problem.solutions), default=0.0)),
        _short(max(gaps, default=None)),
    ]


def problem_json(problem: ReportProblem) -> dict[str, Any]:
    return {
        "name": problem.name,
        "text": problem.text,
        "answer": problem.answer,
        "error": problem.error,
        "groups": dict(problem.groups),
        "picks": [[pick.name, pick.answer, list(pick.solutions)] for pick in problem.picks],
        "solutions": [solution_json(solution) for solution in problem.solutions],
        "formulas": formulas_json(problem),
    }


def formulas_json(problem: ReportProblem) -> dict[str, Any]:
    """TeX as it stands in the texts of the problem -> its MathML, of what could be converted."""
    texts = [problem.text]
    for solution in problem.solutions:
        texts += solution.steps
        texts += [part for chain in solution.chains for part in chain.parts if isinstance(part, str)]
    return {text[begin:end]: tree for text in dict.fromkeys(texts) for begin, end, tree in formulas(text)}


def solution_json(solution: ReportSolution) -> dict[str, Any]:
    return {
        "steps": list(solution.steps),
        "score": _short(solution.score),
        "verdict": _short(solution.verdict_score),
        "labels": list(solution.labels),
        "scores": [_short(score) for score in solution.scores],
        "predicted": solution.predicted,
        "truth": solution.truth,
        "correct": _flag(solution.correct),
        "answer": solution.answer,
        "error": solution.error,
        "finish": solution.finish,
        "tokens": solution.tokens,
        "wrong": solution.wrong,
        "disputed": solution.disputed,
        "agreeing": solution.agreeing,
        "chains": [chain_json(chain) for chain in solution.chains],
    }


def chain_json(chain: ReportChain) -> dict[str, Any]:
    return {
        "parts": [
            [part.text, part.label, part.step] if isinstance(part, VerdictMark) else part for part in chain.parts
        ],
        "ending": chain.ending,
        "score": _short(chain.score),
        "labels": list(chain.labels),
        "scores": [_short(score) for score in chain.scores],
        "forced": [step for step, forced in enumerate(chain.forced) if forced],
        "first": chain.first_error,
        "readable": chain.readable,
        "contradictory": chain.contradictory,
        "finish": chain.finish,
        "tokens": chain.tokens,
    }


def dump(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON that can stand in a script element and in UTF-8: no `<`, no `&`, no lone surrogate, no U+2028."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in _ESCAPED:
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


_ESCAPED = "<>&\u2028\u2029\x7f\ufeff"  # none of them has a part in the syntax of JSON: all stand inside texts
_SURROGATE = re.compile("[\ud800-\udfff]")


def _pack(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _short(value: float | None) -> float | None:
    """Six digits, of small values too: selections can hang on them."""
    return None if value is None else float(f"{value:.6g}")


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)
