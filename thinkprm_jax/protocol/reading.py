"""Reading the step verdicts out of a verification chain, whatever shape the chain has.

A verdict is `\\boxed{correct}` or `\\boxed{incorrect}`. It belongs to the latest heading `Step i`
before it, where a heading stands at the start of a line: a mention of another step inside a sentence
moves nothing. A step judged again (another thinking round, a summary) has its last verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Upper bounds on blanks keep every match linear in the text.
_BLANKS = r"(?:[\s~]|\\[ ,;:!]){0,20}"
_STYLE = r"\\(?:text|textbf|textit|texttt|textrm|textsf|mathrm|mathbf|mathit|mathsf|emph|bf|rm)"
_VERDICT = re.compile(
    rf"\\boxed\s{{0,20}}\{{{_BLANKS}(?:{_STYLE}\s{{0,20}}\{{?{_BLANKS}){{0,3}}\*{{0,2}}"
    rf"(correct|incorrect)\*{{0,2}}[.!]?(?={_BLANKS}(?:\}}|\Z))",
    re.IGNORECASE,
)
_MARKS = r"(?:(?:>|[-*+•]|#{1,6}|\d{1,4}[.)])[ \t]{1,20}){0,3}#{0,6}[*_]{0,3}"
_LEAD_WORDS = (
    r"(?:(?:ok|okay|now|next|then|finally|again|let's|let me|(?:re-?|double[ -]?)?check(?:ing)?"
    r"|(?:re-?)?verify(?:ing)?|re-?visit(?:ing)?|(?:re-?)?evaluat(?:e|ing))[,:]?[ \t]{1,3}){0,3}"
    r"(?:(?:verdict|conclusion|critique|analysis|review|evaluation|assessment|judge?ment|check)"
    r"[ \t]{1,5}(?:for|of|on)[ \t]{1,5})?"
)
_RANGE = (
    r"steps?[ \t]{1,5}(?P<first>\d{1,6})[ \t]{0,5}"
    r"(?:[-–—&]|to|through|and)[ \t]{0,5}(?P<last>\d{1,6})"
)
_HEADING = re.compile(
    rf"^[ \t]{{0,40}}{_MARKS}{_LEAD_WORDS}(?:{_RANGE}|step[ \t]{{0,5}}#?(?P<only>\d{{1,6}}))"
    r"(?:[ \t]{0,5}\([^()\n]{0,80}\))?[*_]{0,3}[ \t]{0,20}"
    # What follows tells a heading from a sentence that happens to begin with `Step 2`.
    r"(?:[:.)—–-]|->|→|\r?$|(?:is[ \t]{1,5})?[\\$(\[ ]{0,4}\\boxed)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class ChainReading:
    """What a chain says about each step; every tuple is as long as the steps.

    labels: 1 correct, 0 incorrect, None not judged; 0 for every step after the first incorrect one.
    judged: whether the chain itself gave a verdict for the step.
    positions: offset in the chain of the word (correct, incorrect) that decided a judged step.
    first_error: index from 0 of the first step judged incorrect.
    complete: every step up to and including the first incorrect one is judged.
    """

    labels: tuple[int | None, ...]
    judged: tuple[bool, ...]
    positions: tuple[int | None, ...]
    first_error: int | None
    complete: bool


@dataclass(frozen=True)
class _Verdict:
    label: int
    position: int


@dataclass(frozen=True)
class _Section:
    """Text from one heading to the next, the verdicts in it, and the steps (from 1) it names."""

    steps: range
    verdicts: list[_Verdict]


def read_chain(chain: str, num_steps: int) -> ChainReading:
    """The verdicts of a chain on `num_steps` steps. Never raises; never a wrong length."""
    before, sections = _sections(chain)
    if not any(section.verdicts for section in sections):
        found = _read_in_order(before, num_steps)
    else:
        found = _read_by_heading(before, sections, num_steps)
    return _result(found, max(num_steps, 0))


def find_verdicts(chain: str) -> list[tuple[int, int, int]]:
    """(start, end, label) of every verdict in the text, in order; from `\\boxed` through its closing brace."""
    found = []
    for match in _VERDICT.finditer(chain):
        closers = re.compile(rf"(?:{_BLANKS}\}}){{0,{match[0].count('{')}}}").match(chain, match.end())
        assert closers is not None  # it may be empty: a chain can end inside the box
        found.append((match.start(), closers.end(), int(match[1].lower() == "correct")))
    return found


def contradicts(score: float | None, labels: Sequence[int]) -> bool | None:
    """Whether the score of a whole solution says one thing and the labels of its steps another.

    The score says correct above one half and incorrect below it; the labels say correct where all are 1. A score
    of exactly one half says nothing. None: one of the two is missing.
    """
    if score is None or not labels:
        return None
    return score != 0.5 and (score > 0.5) != (0 not in labels)


def _sections(chain: str) -> tuple[list[_Verdict], list[_Section]]:
    """(verdicts before the first heading, sections)."""
    before: list[_Verdict] = []
    sections: list[_Section] = []
    headings = list(_HEADING.finditer(chain))
    upcoming = 0
    for match in _VERDICT.finditer(chain):
        while upcoming < len(headings) and headings[upcoming].start() <= match.start():
            sections.append(_Section(_named_steps(headings[upcoming]), []))
            upcoming += 1
        verdict = _Verdict(int(match[1].lower() == "correct"), match.start(1))
        (sections[-1].verdicts if sections else before).append(verdict)
    sections += [_Section(_named_steps(heading), []) for heading in headings[upcoming:]]
    return before, sections


def _named_steps(heading: re.Match[str]) -> range:
    if heading["only"]:
        return range(int(heading["only"]), int(heading["only"]) + 1)
    return range(int(heading["first"]), int(heading["last"]) + 1)


def _read_by_heading(
    before: Sequence[_Verdict], sections: Sequence[_Section], num_steps: int
) -> dict[int, _Verdict]:
    """Step (from 1) -> verdict. The last verdict under the last heading that has one counts."""
    speaking = [section for section in sections if section.verdicts]
    # The solution was restated under headings, and judged after all of them without any. (Two
    # verdicts under one heading are a correction.)
    last_alone = len(sections) > 1 and speaking == [sections[-1]]
    if last_alone and len(speaking[0].verdicts) >= max(num_steps, 3):
        return _read_in_order(speaking[0].verdicts, num_steps)
    found: dict[int, _Verdict] = {}
    # Verdicts before the first heading count where they fill the steps before it exactly; others
    # are no verdicts, as a chain may first repeat the format that it was asked for.
    if len(before) == sections[0].steps.start - 1:
        found = _read_in_order(before, num_steps)
    for section in speaking:
        for step in section.steps[: max(num_steps, 0)]:
            if 1 <= step <= num_steps:
                found[step] = section.verdicts[-1]
    return found


def _read_in_order(verdicts: Sequence[_Verdict], num_steps: int) -> dict[int, _Verdict]:
    """Without headings the k-th verdict is that of step k; of full repetitions the last counts."""
    if num_steps < 1:
        return {}
    rounds = len(verdicts) // num_steps
    if rounds >= 2 and len(verdicts) % num_steps == 0:
        verdicts = verdicts[(rounds - 1) * num_steps :]
    return dict(enumerate(verdicts[:num_steps], start=1))


def _result(found: dict[int, _Verdict], num_steps: int) -> ChainReading:
    verdicts = [found.get(step) for step in range(1, num_steps + 1)]
    labels = [None if verdict is None else verdict.label for verdict in verdicts]
    first_error = labels.index(0) if 0 in labels else None
    needed = labels if first_error is None else labels[: first_error + 1]
    if first_error is not None:
        labels[first_error:] = [0] * (num_steps - first_error)
    return ChainReading(
        labels=tuple(labels),
        judged=tuple(verdict is not None for verdict in verdicts),
        positions=tuple(None if verdict is None else verdict.position for verdict in verdicts),
        first_error=first_error,
        complete=None not in needed,
    )
