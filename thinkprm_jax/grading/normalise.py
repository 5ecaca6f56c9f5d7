"""An answer's LaTeX, cleaned to one spelling, and what can be read off it without any algebra.

Everything here is string work: it terminates on any text and never raises. What the strings cannot decide is
left to the worker processes of `thinkprm_jax.grading.pool`.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

# One spelling for what people type instead of LaTeX. Superscripts come before anything that folds them to digits.
# fmt: off
_CHARACTERS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "×": r"\cdot ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "π": r"\pi ", "θ": r"\theta ", "∞": r"\infty ", "±": r"\pm ", "√": r"\sqrt ", "∅": r"\emptyset ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "°": "", "％": "%",
    "，": ",", "（": "(", "）": ")", "：": ":", "．": ".", "。": ".", "＝": "=", "\u00a0": " ",
    "€": "", "£": "", "¥": "", "₹": "", "`": "", "’": "'", "“": "", "”": "", '"': "",
    **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
})
# fmt: on
_COMMAND_END = r"(?![A-Za-z])"
_SPACING = re.compile(
    rf"(?<!\\)\\[,;:!> ]|~|\\q?quad{_COMMAND_END}|\\(?:displaystyle|textstyle|hfill|limits){_COMMAND_END}"
)
_SIZES = re.compile(rf"\\(?:left|right|[bB]igg?[lr]?){_COMMAND_END}\.?")
_MATH_MARKS = re.compile(r"\\?\$|(?<!\\)\\[()\[\]]|\*\*")
_DEGREES = re.compile(rf"\^\{{?\s*\\circ{_COMMAND_END}\s*\}}?|\\degree{_COMMAND_END}")
_RENAMED = (
    (re.compile(r"(?<!\\)%"), r"\\%"),
    (re.compile(r"\\[dtc]frac" + _COMMAND_END), r"\\frac"),
    (re.compile(r"\\leq(?:slant)?" + _COMMAND_END + "|<="), r"\\le "),
    (re.compile(r"\\geq(?:slant)?" + _COMMAND_END + "|>="), r"\\ge "),
    (re.compile(r"\\neq" + _COMMAND_END + "|!="), r"\\ne "),
    (re.compile(r"\\(?:times|ast)" + _COMMAND_END), r"\\cdot "),
    (re.compile(r"\\(?:varnothing)" + _COMMAND_END), r"\\emptyset "),
    (re.compile(r"\\l?brace" + _COMMAND_END), r"\\{"),
    (re.compile(r"\\rbrace" + _COMMAND_END), r"\\}"),
    (re.compile(r"\\(begin|end)\{(?:[bBvV]?matrix|smallmatrix)\}"), r"\\\1{pmatrix}"),
    (re.compile(r"\\begin\{array\}\{[^{}]*\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{array\}"), r"\\end{pmatrix}"),
    (re.compile(r"(?:\\\\\s*)+\\end\{pmatrix\}"), r"\\end{pmatrix}"),
)
_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname\*?|boxed|fbox)"
    r"\s*\{([^{}]*)\}"
)
_UNIT_TEXT = re.compile(
    r"(?<=[\d}).])\s*\\(?:text|mbox|mathrm|textrm|hbox)\s*\{[^{}]*\}(?:\s*\^\s*\{?\s*\d\s*\}?)?\s*\.?$"
)
_UNIT_WORDS = (
    r"(?:square|sq\.?|cubic|cu\.?)?\s*"
    r"(?:units?|degrees?|deg|radians?|percent(?:age)?|pct|dollars?|cents?|euros?|pounds?|lbs?|ounces?|oz|grams?|kg|"
    r"kilograms?|mm|cm|km|ft|feet|foot|inch(?:es)?|yards?|miles?|mph|kmh|met(?:er|re)s?|"
    r"(?:centi|kilo|milli)met(?:er|re)s?|lit(?:er|re)s?|ml|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|"
    r"months?|years?|people|students|ways|times|points?|marbles|apples|books|cookies)"
)
_UNIT_TAIL = re.compile(
    rf"(?<=[\d}})])\s*(?:{_UNIT_WORDS})(?:\s*(?:/|per)\s*(?:{_UNIT_WORDS}))?(?:\^\{{?\d\}}?)?$", re.I
)
_PERCENT = re.compile(r"(?<=[\d}).])\s*\\%$")
_LAST_MARKS = re.compile(r"[\s.:;,/]+$")
_CONNECTIVE = re.compile(r"\s*,?\s+(?:and|or)\s+", re.I)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_GROUPED_COMMA = re.compile(r"(?<=\d)(?:\{,\}|,\\!)\s*(?=\d{3}(?!\d))")
_ARGUMENT = r"\s*(\d|\\(?:pi|theta|alpha|beta)(?![A-Za-z])|\{[^{}]*\})"
_BARE_FRACTION = re.compile(rf"\\frac{_ARGUMENT}{_ARGUMENT}")
_BARE_ROOT = re.compile(r"\\sqrt\s*(\d+|[A-Za-z])(?![A-Za-z])")
_SLASH = re.compile(r"\(?(-?\d+(?:\.\d+)?)\)?/\(?(-?\d+(?:\.\d+)?)\)?")
_NEGATIVE_FRACTION = re.compile(r"(?<![\w})+-])\\frac\{-(\d+)\}\{(\d+)\}")
_POINT_FIRST = re.compile(r"(?<![\w})])\.(?=\d)")
_ZERO_TAIL = re.compile(r"(\d)(?:\.0+|(\.\d*?[1-9])0+)(?![\d])")
_MIXED = re.compile(r"(?<=\d)\s+(\d+)/(\d+)")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)")
# Kept: the space between two letters (`\pi x`, two words) and between two digits.
_LONE_SPACE = re.compile(r"(?<![A-Za-z\d]) | (?![A-Za-z\d])|(?<=[A-Za-z]) (?=\d)|(?<=\d) (?=[A-Za-z])")
_FRACTION = re.compile(
    r"(-?)(\d*)\\frac\{(-?\d+(?:\.\d+)?)\}\{(-?\d+(?:\.\d+)?)\}|(-?)()(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)"
)
_DECIMAL = re.compile(r"[-+]?\d+(?:\.\d+)?")
_ASSIGNMENT = re.compile(r"[A-Za-z](?:_\{?\w\}?)?\s*(?:=|\\in(?![A-Za-z]))\s*(?=\S)")
_WORDS = re.compile(r"[A-Za-z]{3,}(?:[ '-][A-Za-z]+)*")
# fmt: off
_NUMBER_WORDS = {word: str(value) for value, word in enumerate((
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
))}
# fmt: on
_LONGEST = 2_000  # characters; no answer is longer, and every pattern here is quick on that many
_MOST_DIGITS = 300  # of a number read exactly: beyond, arithmetic is not string work any more
_PASSES = 12


def normalise(answer: str) -> str:
    """One spelling of a final answer's LaTeX: no mathematics marks, sizes, spacing or units, `\\frac` and `\\sqrt`
    with braces, plain numbers without thousands separators or idle zeros. The form of the answer stays:
    `0.5` does not become `\\frac{1}{2}`, nor `x=5` become `5`. normalise(normalise(a)) == normalise(a).

    Text of more than 2,000 characters is no answer and only loses its outer white space.
    """
    text = answer.strip()
    if len(text) > _LONGEST:
        return text
    current = text
    seen: list[str] = []
    while current not in seen:
        # What one rule leaves another may match, so they run until nothing changes; a text that never settles
        # stays what it was, which keeps the function idempotent.
        if len(seen) == _PASSES:
            return text
        seen.append(current)
        current = _one_pass(current)
    return current


def _one_pass(text: str) -> str:
    text = " ".join(text.translate(_CHARACTERS).split())
    text = _GROUPED_COMMA.sub("", text)
    text = _DEGREES.sub("", _SPACING.sub(" ", _SIZES.sub("", text)))
    text = _MATH_MARKS.sub("", text).strip()
    for pattern, replacement in _RENAMED:
        text = pattern.sub(replacement, text)
    if not _has_words(text):
        text = _UNIT_TEXT.sub("", text)
    text = unwrap_text(text).strip()
    text = _PERCENT.sub("", _UNIT_TAIL.sub("", text))
    text = _LAST_MARKS.sub("", text).lstrip(": ")
    if not _has_words(_CONNECTIVE.sub(",", text)):
        text = _CONNECTIVE.sub(",", text)
    if not re.search(r"[()\[\]{}]", text):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = _MIXED.sub(r"\\frac{\1}{\2}", text)
    text = _BARE_FRACTION.sub(lambda match: rf"\frac{_braced(match[1])}{_braced(match[2])}", text)
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    text = _NEGATIVE_FRACTION.sub(r"-\\frac{\1}{\2}", text)
    whole = _SLASH.fullmatch(text)
    text = rf"\frac{{{whole[1]}}}{{{whole[2]}}}" if whole else text
    text = _ZERO_TAIL.sub(r"\1\2", _POINT_FIRST.sub("0.", text))
    text = _outer_braces(_LONE_SPACE.sub("", " ".join(text.split())))
    return _NUMBER_WORDS.get(text.lower(), text)


def _braced(argument: str) -> str:
    return argument if argument.startswith("{") else f"{{{argument}}}"


def unwrap_text(text: str) -> str:
    """`Even` for `\\text{Even}`, at any depth."""
    count = 1
    while count:
        text, count = _TEXT_COMMAND.subn(r"\1", text)
    return text


def _has_words(text: str) -> bool:
    """Whether words stand outside the commands of `text` and their text arguments."""
    return re.search(r"(?<![\\A-Za-z])[A-Za-z]{3,}", _TEXT_COMMAND.sub("", text)) is not None


def _outer_braces(text: str) -> str:
    """`{5}` is 5, and `{1,2}` was meant as a set: TeX would drop its braces too."""
    while text[:1] == "{" and _closing(text, 0) == len(text) - 1 and text != "{}":
        inner = text[1:-1]
        if len(split_list(inner)) > 1:
            return rf"\{{{inner}\}}"
        text = inner.strip()
    return r"\emptyset" if text in ("{}", r"\{\}") else text


def _closing(text: str, start: int) -> int:
    """Where the brace at `start` is closed; -1 if nowhere. Escaped braces do not count."""
    depth = 0
    position = start
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
        position += 1
    return -1


def split_list(text: str) -> list[str]:
    """The parts of `text` between commas that stand in no bracket; [text] where there are none."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def has_percent(answer: str) -> bool:
    return re.search(r"%|\bpercent|\bpct\b", answer, re.I) is not None


def is_words(normal: str) -> bool:
    """Whether a normalised answer is plain words (`Evelyn`), which algebra would read as a product of letters."""
    return _WORDS.fullmatch(normal) is not None


def drop_assignment(normal: str) -> str:
    """`5` for `x=5` and `[1,2]` for `x\\in[1,2]`; anything else as it is."""
    match = _ASSIGNMENT.match(normal)
    rest = normal[match.end() :] if match else normal
    return normal if re.search(r"=|\\le|\\ge|<|>", rest) else rest


def read_number(normal: str) -> tuple[Fraction, bool] | None:
    """The exact value of a normalised plain number, fraction or mixed number, and whether it was written with a
    decimal point; None for anything else."""
    if len(normal) > _MOST_DIGITS:
        return None
    if _DECIMAL.fullmatch(normal):
        return Fraction(normal), "." in normal
    match = _FRACTION.fullmatch(normal)
    if match is None:
        return None
    sign, whole, top, bottom = (group for group in match.groups() if group is not None)
    if Fraction(bottom) == 0 or (whole and ("-" in top or "-" in bottom)):
        return None
    value = Fraction(whole or 0) + Fraction(top) / Fraction(bottom)
    return (-value if sign else value), "." in top + bottom


def write_number(value: Fraction) -> str:
    """`5`, `-5`, `\\frac{1}{2}`, `-\\frac{1}{2}`: the canonical spelling of a rational number."""
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    return f"{sign}{top}" if bottom == 1 else rf"{sign}\frac{{{top}}}{{{bottom}}}"


def same_text(gold: str, prediction: str, precision: int) -> bool | None:
    """What two normalised answers say without algebra: equal, unequal, or None (not to be decided here).

    precision: decimals to which numbers are rounded where one of them was written with a decimal point.
    """
    if gold.casefold() == prediction.casefold() and (gold == prediction or is_words(gold)):
        return bool(gold)
    if not gold or not prediction:
        return False
    wanted, found = read_number(gold), read_number(prediction)
    if wanted is not None and found is not None:
        (first, decimal_first), (second, decimal_second) = wanted, found
        if decimal_first or decimal_second:
            return round(first, precision) == round(second, precision)
        return first == second
    if is_words(gold) and is_words(prediction) and max(len(gold), len(prediction)) > 3:
        return False
    values = drop_assignment(gold), drop_assignment(prediction)
    if (values[0] != gold) != (values[1] != prediction):
        return same_text(
            *values, precision
        )  # one of the two names its variable, the other does not: the value decides
    return True if _same_brackets(gold, prediction, precision) else None


def _same_brackets(gold: str, prediction: str, precision: int) -> bool:
    """Whether both are lists in the same brackets with equal parts; a set's parts in any order."""
    opening = re.match(r"\\\{|[(\[]", gold)
    closing = re.search(r"(?:\\\}|[)\]])\Z", gold)
    if not opening or not closing or not prediction.startswith(opening[0]) or not prediction.endswith(closing[0]):
        return False
    inner = [text[len(opening[0]) : len(text) - len(closing[0])] for text in (gold, prediction)]
    first, second = (split_list(text) for text in inner)
    if len(first) != len(second) or len(first) < 2 or not all(map(_is_balanced, first + second)):
        return False
    if opening[0] == r"\{":
        return Counter(map(_part_key, first)) == Counter(map(_part_key, second))
    return all(same_text(a, b, precision) is True for a, b in zip(first, second, strict=True))


def _is_balanced(part: str) -> bool:
    depth = 0
    for character in part:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:  # `1,2),(3,4` is not the inside of one bracket
            return False
    return depth == 0


def _part_key(part: str) -> str:
    number = read_number(part)
    return part if number is None else write_number(number[0])
