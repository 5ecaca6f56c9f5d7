"""Finding the final answer in the text of a solution."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from thinkprm_jax.grading.meaning import understood_key
from thinkprm_jax.grading.normalise import normalise, unwrap_text
from thinkprm_jax.grading.terms import NotUnderstood
from thinkprm_jax.grading.units import read_unit

Kind = Literal["math", "choice", "exact"]
Rule = Literal["boxed", "marked", "phrase", "whole", "formula", "number", "letter"]

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
    r"[\s*]{0,16}[:：]?[\s*]*"
    r"(?:(?:therefore|thus|then|hence|so|simply|just|exactly|indeed|approximately|roughly|about|equal to)"
    r"[\s:,]{1,8})?",
    re.IGNORECASE,
)
_MATHS = re.compile(
    # A formula holds no opening of another one: else each opening of a text without a closing would read it all.
    r"\$\$([^$]+)\$\$|\$((?:\\\$|[^$\n])+)\$"
    r"|\\\(((?:[^\\]|\\(?![()]))+)\\\)|\\\[((?:[^\\]|\\(?![\[\]]))+)\\\]"
)
# Between formulas that are one answer: `$1$ and $2$`.
_BETWEEN_MATHS = re.compile(r"\s{0,8}(?:,|;)?\s{0,8}(?:and|or)?\s{0,8}")
_TAGGED = re.compile(r"<answer>((?:[^<]|<(?!/?answer>))*)</answer>", re.IGNORECASE)
_HASHED = re.compile(r"^[ \t]{0,8}####[ \t]*([^\n]*)", re.MULTILINE)
# What prose says first of an answer: a number, whatever is counted.
_PLAIN_NUMBER = re.compile(
    r"((?:[-−+]\s?)?[$€£¥]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:\s?/\s?\d+|[eE][+-]?\d+)?(?:\s?\\?%)?)"
    r"(?=[\s.;:]|,(?!\d)|\Z)"
)
# A remark behind it: `(2 of each)`, `. Note that`, `, since`.
_NOTE = re.compile(
    r"\s{0,8}\((?=[^)]{0,80}[^\W\d_]{2})|\s{0,8}(?:[.;:#–—-]|,(?=\s))[\s*]{0,8}(?!and|or)[^\W\d_]{2}"
)
_CLAUSE = re.compile(r"(?<![A-Za-z\\{])(?:is|are|was|were|has|have|there)(?![A-Za-z])")
# Prose that computes: `10 - 4 = ` of `10 - 4 = 6 apples`.
_COMPUTED = re.compile(r"[\d\s.,+*/×÷·()$%^−-]{1,100}=\s{0,4}(?=[-−+$€£]{0,2}\d)")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?:\s?[ap]\.?\s?m\b\.?)?(?=\s+([^\W\d_]+))", re.IGNORECASE)
_SIDE = re.compile(r"(?<![<>!:\\])=(?!=)")
_SENTENCE_END = re.compile(r"\n|\.(?=\s|\Z)|<\|")
_NUMBER = re.compile(r"(?<![A-Z])(?:(?<![\w)}])-)?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+(?:\.\d+)?)?")
_LETTER = r"\(?\s*([A-J])\s*\)?"
_WHOLE_LETTER = re.compile(rf"\s*{_LETTER}\s*(?:[.:)]|\Z).*", re.DOTALL)
_CHOICE_PHRASE = re.compile(
    r"(?i:answer|option|choice)[\s:*$]{0,16}(?i:is)?[\s:*$]{0,16}(?i:option|choice)?[\s:*$]{0,16}"
    r"(?:\\(?:text|mathrm|boxed)\{){0,3}\(?([A-J])(?![A-Za-z'])"
)
# Not the pronoun, nor the article.
_LAST_LETTER = re.compile(r"(?<![A-Za-z\\'])(A(?!\s+[a-z])|[B-HJ])(?![A-Za-z'])")

# Words behind a number that make it another one, or go on with the answer.
_GOES_ON = {"and", "or", "to", "times", "plus", "minus", "over", "hundred", "thousand", "million", "billion",
    "trillion",
            "dozen", "percent", "pct", "degrees", "degree", "am", "pm", "a", "p", "x", "mod", "by",
            "base", "pi", "sqrt"}  # fmt: skip
_WHOLE_ANSWER = 200  # characters; a longer text is a solution


@dataclass(frozen=True)
class Found:
    """An answer as it stands in the text, and the rule that found it.

    boxed: the last complete, non-empty `\\boxed{...}` (neighbouring boxes are one list); marked: the last `####
    18` or `<answer>18</answer>`; phrase: after `the answer is`, `final answer` or `answer:`; whole: the text is
    nothing but an answer; formula: the last formula
    between mathematics marks, the side behind its last `=`; number: the last number of the text. The last two are
    guesses, of which that one counts which stands last. letter: the last capital A to J that stands alone, a guess
    too (choice only).
    """

    answer: str
    rule: Rule


def find_answer(text: str, kind: Kind = "math") -> Found | None:
    """The final answer of a solution, or None. Never raises.

    math: boxed, marked, phrase, whole, then formula or number. exact: boxed, marked, then phrase. choice: a
    letter in the last box, after a phrase, then the last letter.
    """
    if kind == "choice":
        return _find_letter(text)
    boxed = _last_box(text)
    if boxed is not None:
        return Found(boxed, "boxed")
    marked = _marked(text, kind)
    if marked is not None:
        return Found(marked, "marked")
    phrase = _after_phrase(text, kind)
    if phrase is not None:
        return Found(phrase, "phrase")
    if kind != "math":
        return None
    return Found(text.strip(), "whole") if _is_answer(text) else _guess(text)


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


def _marked(text: str, kind: Kind) -> str | None:
    """What the last mark of the text says is the answer: the tag, or the line behind `####`."""
    marks = [(match.start(), match[1]) for pattern in (_TAGGED, _HASHED) for match in pattern.finditer(text)]
    for _, content in sorted(marks, reverse=True):
        content = content.strip()
        if content:
            return (_after_phrase(content) or _stated(content)) if kind == "math" else content
    return None


def _after_phrase(text: str, kind: Kind = "math") -> str | None:
    """What follows the last `the answer is`: its mathematics if it begins with some, else the sentence's rest."""
    for match in reversed(list(_PHRASE.finditer(text))):
        answer = _formulas(text, match.end())
        if answer is None:
            end = _SENTENCE_END.search(text, match.end())
            answer = text[match.end() : end.start() if end else None]
        answer = answer.strip().removesuffix("**").strip()
        if answer:
            return _stated(answer) if kind == "math" else answer
    return None


def _formulas(text: str, start: int) -> str | None:
    """The formula that begins at `start`, with those that are joined to it."""
    found = []
    while (maths := _MATHS.match(text, start)) is not None:
        found.append(next(group for group in maths.groups() if group is not None).strip())
        joint = _BETWEEN_MATHS.match(text, maths.end())
        assert joint is not None  # it may be empty
        if not joint[0].strip():
            break
        start = joint.end()
    return ", ".join(found) or None


def _stated(answer: str) -> str:
    """Of prose that begins with a number, the number: `16` of `16 students present out of 24`. A unit of measure
    belongs to it, and so does what makes it another number (`5 million`, `5 or 6`)."""
    start = 0
    while computed := _COMPUTED.match(answer, start):
        start = computed.end()
    answer = answer[start:]
    clock = _CLOCK.match(answer)
    if clock is not None and clock[1].lower() not in _GOES_ON:
        return clock[0]
    number = _PLAIN_NUMBER.match(answer)
    if number is None:
        guess = _guess(answer) if _CLAUSE.search(answer) else None
        return answer if guess is None else guess.answer
    rest = answer[number.end() :]
    if _NOTE.match(rest):
        return number[1]
    rest = rest.strip()
    word = re.match(r"[^\W\d_]+", rest)
    if word is None or word[0].lower() in _GOES_ON:
        return answer
    words = rest.rstrip(".").split()
    for length in (3, 2, 1):
        unit = " ".join(words[:length])
        if read_unit(unit) is not None:
            more = " ".join(words[length:])  # `5 feet 6 inches`
            further = _stated(more) if len(more) < _WHOLE_ANSWER and re.match(r"\d", more) else ""
            return f"{number[1]} {unit} {further}" if further.partition(" ")[2] else f"{number[1]} {unit}"
    return number[1]


def _is_answer(text: str) -> bool:
    """Whether the text is an answer and nothing else."""
    if len(text) > _WHOLE_ANSWER or "\n" in text.strip():
        return False
    try:
        understood_key(normalise(text))
    except (NotUnderstood, RecursionError):
        return False
    return True


def _guess(text: str) -> Found | None:
    """The last formula or number, whichever stands last."""
    numbers = [match for match in _NUMBER.finditer(text) if match[0]]
    formulas = list(_MATHS.finditer(text))
    if formulas and (not numbers or numbers[-1].end() <= formulas[-1].end()):
        formula = next(group for group in formulas[-1].groups() if group is not None)
        answer = _last_side(formula).strip().rstrip(".,;")
        if answer:
            return Found(answer, "formula")
    return Found(numbers[-1][0], "number") if numbers else None


def _last_side(formula: str) -> str:
    """What stands behind the last `=` that is in no braces."""
    depth, start = 0, 0
    for position, character in enumerate(formula):
        depth += (character == "{") - (character == "}")
        if depth == 0 and _SIDE.match(formula, position):
            start = position + 1
    return formula[start:]


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
