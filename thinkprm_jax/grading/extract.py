"""Finding the final answer in the text of a solution."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from thinkprm_jax.grading.normalise import normalise, unwrap_text

Kind = Literal["math", "choice", "exact"]
Rule = Literal["boxed", "phrase", "number", "letter"]

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped character is one match, so its brace is passed over
# What may stand between two boxes that are one answer: `\boxed{1} and \boxed{2}`. White space is counted in all
# these patterns: two unbounded runs of it side by side would be tried in every split.
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$,;]|\\[()\[\],;:!]|\\q?quad(?![A-Za-z])|and|or|\\text\s{0,4}\{\s{0,4},?\s{0,4}(?:and|or)?\s{0,4}\})*"
)
# Matched without case, so that `Final Answer:` and `Therefore, the answer is` are one rule.
_PHRASE = re.compile(
    r"(?:final\s+answer(?:\s+is)?|(?<![A-Za-z])answer\s+is|(?<![A-Za-z])answer(?=[\s*]{0,8}:)|答案是|答案为)"
    r"[\s*]{0,16}[:：]?[\s*]*",
    re.IGNORECASE,
)
_MATHS = re.compile(r"\$\$(.+?)\$\$|\$((?:\\\$|[^$\n])+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_SENTENCE_END = re.compile(r"\n|\.(?=\s|\Z)|<\|")
_NUMBER = re.compile(r"(?:(?<![\w)}])-)?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+(?:\.\d+)?)?")
_LETTER = r"\(?\s*([A-J])\s*\)?"
_WHOLE_LETTER = re.compile(rf"\s*{_LETTER}\s*(?:[.:)]|\Z).*", re.DOTALL)
_CHOICE_PHRASE = re.compile(
    r"(?i:answer|option|choice)[\s:*$]{0,16}(?i:is)?[\s:*$]{0,16}(?i:option|choice)?[\s:*$]{0,16}"
    r"(?:\\(?:text|mathrm|boxed)\{){0,3}\(?([A-J])(?![A-Za-z'])"
)
# Not the pronoun, nor the article.
_LAST_LETTER = re.compile(r"(?<![A-Za-z\\'])(A(?!\s+[a-z])|[B-HJ])(?![A-Za-z'])")


@dataclass(frozen=True)
class Found:
    """An answer as it stands in the text, and the rule that found it.

    boxed: the last complete, non-empty `\\boxed{...}` (neighbouring boxes are one list); phrase: after `the answer
    is`, `final answer` or `answer:`; number: the last number of the text, a guess; letter: the last capital A to J
    that stands alone, a guess too (choice only).
    """

    answer: str
    rule: Rule


def find_answer(text: str, kind: Kind = "math") -> Found | None:
    """The final answer of a solution, or None. Never raises.

    math: boxed, phrase, then number. exact: boxed, then phrase. choice: a letter in the last box, after a phrase,
    then the last letter.
    """
    if kind == "choice":
        return _find_letter(text)
    boxed = _last_box(text)
    if boxed is not None:
        return Found(boxed, "boxed")
    phrase = _after_phrase(text)
    if phrase is not None:
        return Found(phrase, "phrase")
    if kind == "math":
        numbers = [match[0] for match in _NUMBER.finditer(text) if match[0]]
        if numbers:
            return Found(numbers[-1], "number")
    return None


def extract_answer(text: str, kind: Kind = "math") -> str | None:
    """The answer of `find_answer` in its normalised form (kind exact: as it stands; choice: the letter), or None.

    Example:

        extract_answer("So the answer is $\\\\boxed{94}$.")  # "94"

    This is what stands inside the box of a recorded prediction (`pred_naive@4` and its like).
    """
    found = find_answer(text, kind)
    if found is None:
        return None
    return (normalise(found.answer) if kind == "math" else found.answer.strip()) or None


def read_letter(answer: str) -> str | None:
    """`B` for `B`, `(B)`, `\\text{(B)}`, `B.` and `(B) 12 apples`; None where no choice is named."""
    match = _WHOLE_LETTER.fullmatch(unwrap_text(answer).strip("$* \t\n"))
    return match[1] if match else None


def _last_box(text: str) -> str | None:
    """The content of the last complete box that has any, joined with the boxes just before it."""
    closings = _closing_braces(text)
    boxes: list[tuple[int, int, str]] = []  # start, end, content
    for match in _BOX.finditer(text):
        end = closings.get(match.end() - 1)
        # A text cut inside its box holds half an answer, which is none; an inner box is part of the outer one.
        if end is None or (boxes and match.start() < boxes[-1][1]):
            continue
        content = text[match.end() : end].strip()
        if content:
            boxes.append((match.start(), end + 1, content))
    if not boxes:
        return None
    contents = [boxes[-1][2]]
    for before, after in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if not _BETWEEN_BOXES.fullmatch(text, before[1], after[0]) or before[2] in contents:
            break
        contents.insert(0, before[2])
    return ", ".join(contents)


def _closing_braces(text: str) -> dict[int, int]:
    """Opening brace -> the brace that closes it, for the pairs of `text`; escaped braces do not count."""
    closings: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closings[opened.pop()] = match.start()
    return closings


def _after_phrase(text: str) -> str | None:
    """What follows the last `the answer is`: its mathematics if it begins with some, else the sentence's rest."""
    for match in reversed(list(_PHRASE.finditer(text))):
        maths = _MATHS.match(text, match.end())
        if maths:
            answer = next(group for group in maths.groups() if group is not None)
        else:
            end = _SENTENCE_END.search(text, match.end())
            answer = text[match.end() : end.start() if end else None]
        answer = answer.strip().removesuffix("**").strip()
        if answer:
            return answer
    return None


def _find_letter(text: str) -> Found | None:
    boxed = _last_box(text)
    letter = read_letter(boxed) if boxed is not None else None
    if letter is not None:
        return Found(letter, "boxed")
    phrases = _CHOICE_PHRASE.findall(text)
    if phrases:
        return Found(phrases[-1], "phrase")
    letters = _LAST_LETTER.findall(text)
    return Found(letters[-1], "letter") if letters else None
