"""An answer's LaTeX, cleaned to one spelling. Nothing that carries a meaning is dropped: units, percent signs,
degrees and words stay.

Everything here is string work: it terminates on any text and never raises. What an answer means is read from
this spelling by `thinkprm_jax.grading.syntax`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from thinkprm_jax.grading.units import is_short_unit

# One spelling for what people type instead of LaTeX. Superscripts come before anything that folds them to digits.
# fmt: off
_CHARACTERS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "×": r"\cdot ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "π": r"\pi ", "θ": r"\theta ", "∞": r"\infty ", "±": r"\pm ", "√": r"\sqrt ", "∅": r"\emptyset ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "°": r"^\circ ", "％": "%",
    "，": ",", "（": "(", "）": ")", "：": ":", "．": ".", "。": ".", "＝": "=", "\u00a0": " ",
    "€": "", "£": "", "¥": "", "₹": "", "`": "", "’": "'", "“": "", "”": "", '"': "", "；": ";", "、": ",",
    "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "μ": r"\mu ", "…": r"\dots ", "∘": r"\circ ",
    **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
})
# fmt: on
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_LEAD = re.compile(r"^(?:the\s+)?(?:final\s+)?(?:solution|answer)s?\s*(?:(?:is|are)\s*)?:\s*", re.I)
# `\mathrm{m} / \mathrm{s}` is one unit.
_SPLIT_UNIT = re.compile(
    r"\\(?:text|mathrm)\s*\{\s*([A-Za-z]+)\s*\}\s*(/|-|\\cdot(?![A-Za-z]))\s*\\(?:text|mathrm)\s*\{\s*([A-Za-z]+)\s*\}"
)
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z])")  # LaTeX that was escaped once too often
_COMMAND_END = r"(?![A-Za-z])"
_SPACING = re.compile(rf"(?<!\\)\\[,;:!> ]|\\q?quad|\\(?:displaystyle|textstyle|hfill|limits){_COMMAND_END}")
_SIZES = re.compile(rf"\\(?:left|right|[bB]igg?[lr]?){_COMMAND_END}\.?")
_POWER = re.compile(r"(?<=[\w)}\]])\s*\*\*\s*(?=[\w({\\-])")  # of Python; other double stars are bold type
_MATH_MARKS = re.compile(r"\\?\$|(?<!\\)\\[()\[\]]|\*\*")
_DEGREES = re.compile(rf"\^\s*\{{?\s*\\circ{_COMMAND_END}\s*\}}?|\\degree{_COMMAND_END}")
_TEMPERATURE = re.compile(r"\^\\circ\s*(?:\\(?:text|mathrm|rm)\s*\{\s*([CF])\s*\}|([CF]))\s*\.?$")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
# fmt: off
_COMMANDS = {
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "dbinom": r"\binom", "tbinom": r"\binom",
    "leq": r"\le ", "leqslant": r"\le ", "geq": r"\ge ", "geqslant": r"\ge ", "lt": "<", "gt": ">",
    "neq": r"\ne ", "times": r"\cdot ", "ast": r"\cdot ", "varnothing": r"\emptyset ",
    "lbrace": r"\{", "brace": r"\{", "rbrace": r"\}", "vert": "|", "lvert": "|", "rvert": "|", "mid": "|",
    "underline": "",
}
# fmt: on


def _power_of_units(match: re.Match[str]) -> str:
    return "square units" if "2" in match[0] else "cubic units"


# (what a text must hold for a rule to be tried, pattern, replacement): most texts hold none of them.
_RENAMED = (
    ("%", re.compile(r"(?<!\\)%"), r"\\%"),
    ("<=", re.compile("<="), r"\\le "),
    ("⩽", re.compile("⩽"), r"\\le "),
    (">=", re.compile(">="), r"\\ge "),
    ("⩾", re.compile("⩾"), r"\\ge "),
    ("choose", re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}"), r"\\binom{\1}{\2}"),
    ("...", re.compile(r"(?<=\d)(\.\d{2,})\.{3,}"), r"\1\\dots "),
    ("units", re.compile(r"\bunits?\s*\^\s*(?:\{\s*([23])\s*\}|([23]))"), _power_of_units),
    ("!=", re.compile("!="), r"\\ne "),
    ("matrix", re.compile(r"\\(begin|end)\{(?:[bB]matrix|smallmatrix)\}"), r"\\\1{pmatrix}"),
    ("array", re.compile(r"\\begin\{array\}\{[^{}|]*\}"), r"\\begin{pmatrix}"),
    ("array", re.compile(r"\\end\{array\}"), r"\\end{pmatrix}"),
    ("pmatrix", re.compile(r"(?:\\\\\s*)+\\end\{pmatrix\}"), r"\\end{pmatrix}"),
    ("operatorname", re.compile(r"\\operatorname\*?\s*\{(sin|cos|tan|ln|log|lg|arctan|gcd|lcm)\}"), r"\\\1 "),
    ("m", re.compile(r"(?<![A-Za-z\\])([ap])\.\s?m\b\.?"), r"\1m"),
    ("", re.compile(r"^((?:0?\d|1[0-2])(?::\d\d)?)\s*a\.?\s?m\.?$", re.I), r"\1 am"),
    ("", re.compile(r"^((?:0?\d|1[0-2])(?::\d\d)?)\s*p\.?\s?m\.?$", re.I), r"\1 pm"),
    ("x", re.compile(r"(?<=\d)\s*x\s*(?=10\s*\^)"), r"\\cdot "),
    ("color", re.compile(r"\\(?:text)?color\s*\{[A-Za-z0-9!]*\}"), ""),
    (")_", re.compile(r"\(([0-9A-Z]+)\)_(?=\{?\d)"), r"\1_"),
)
_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname\*?|boxed|fbox)"
    r"\s*\{([^{}]*)\}"
)
_TEXT_KEPT = re.compile(r"(?<=[\d}).])\s*" + _TEXT_COMMAND.pattern)
_LAST_MARKS = re.compile(r"[\s.:;,/]+$")
_CONNECTIVE = re.compile(r"\s*,?\s+(?:and|or)\s+", re.I)
_ORDER = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_LISTED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d])(?=,\s|$)")
_GROUPED_COMMA = re.compile(r"(?<=\d)(?:\{,\}|,\\!)\s*(?=\d{3}(?!\d))")
_LIST_COMMA = re.compile(r"\s*,\s+(?!\d{3}(?!\d))|(?<!\d),\s+|\s+,(?!\d{3}(?!\d))")
_ARGUMENT = r"\s*(\d|[a-z]|\\(?:pi|theta|alpha|beta)(?![A-Za-z])|\{[^{}]*\})"
_BARE_FRACTION = re.compile(rf"\\frac{_ARGUMENT}{_ARGUMENT}")
_BARE_ROOT = re.compile(r"\\sqrt\s*(\d+|[A-Za-z])(?![A-Za-z])")
_SLASH = re.compile(r"\(?(-?\d+(?:\.\d+)?)\)?/\(?(-?\d+(?:\.\d+)?)\)?")
_BRACKETS = re.compile(r"[()\[\]{}]")
_NEGATIVE_FRACTION = re.compile(r"(?<![\w})+-])\\frac\{-(\d+)\}\{(\d+)\}")
_POINT_FIRST = re.compile(r"(?<![\w})])\.(?=\d)")
_ZERO_TAIL = re.compile(r"(?<![\d.])(\d+)(?:\.0+|(\.\d*?[1-9])0+)(?![\d\\(eE])")
_MIXED = re.compile(r"(?<=\d)\s+(\d+)/(\d+)")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)")
# Kept: the space between two letters (`\pi x`, two words), between two digits, around a word beside a digit
# (`15 cm`), and behind a comma that could be taken for one of thousands (`10, 200`).
_LONE_SPACE = re.compile(
    r"(?<![A-Za-z\d,]) | (?![A-Za-z\d])|(?<=[A-Za-z]) (?=\d)(?<![A-Za-z]{2} )|(?<=\d) (?=[A-Za-z](?![A-Za-z]))"
    r"|(?<=,) (?!\d{3}(?!\d))|(?<=[^\d],) "
)
# fmt: off
_NUMBER_WORDS = {word: str(value) for value, word in enumerate((
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
))}
# fmt: on
LONGEST = 2_000  # characters; no answer is longer, and every pattern here is quick on that many
_PASSES = 12


def normalise(answer: str) -> str:
    """One spelling of a final answer's LaTeX: no mathematics marks, sizes or spacing, `\\frac` and `\\sqrt` with
    braces, plain numbers without thousands separators or idle zeros. The form of the answer stays: `0.5` does not
    become `\\frac{1}{2}`, nor `x=5` or `5 cm` become `5`. normalise(normalise(a)) == normalise(a).

    Text of more than 2,000 characters is no answer and only loses its outer white space.
    """
    text = answer.strip()
    return text if len(text) > LONGEST else _normalised(text)


@lru_cache(maxsize=16_384)
def _normalised(text: str) -> str:
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
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    text = " ".join(text.translate(_CHARACTERS).split())
    if ":" in text:
        text = _LEAD.sub("", text)
    if "," in text:
        text = _GROUPED_COMMA.sub("", text)
    if "\\" in text:
        if r"\\" in text and r"\begin" not in text:
            text = _DOUBLED.sub(r"\\", text)
        text = _DEGREES.sub(r"^\\circ ", _SPACING.sub(" ", _SIZES.sub("", text)))
    text = _MATH_MARKS.sub("", _POWER.sub("^", text.replace("~", " "))).strip()
    if r"\circ" in text:
        text = _TEMPERATURE.sub(lambda m: " celsius" if "C" in m[0] else " fahrenheit", text)
    for trigger, pattern, replacement in _RENAMED:
        if trigger in text:
            text = pattern.sub(replacement, text)
    if "\\" in text:
        text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], match[0]), text)
        text = _SPLIT_UNIT.sub(lambda m: rf"\mathrm{{{m[1]}{'/' if m[2] == '/' else '*'}{m[3]}}}", text)
        text = _unwrap_beside_numbers(text).strip()
    return _in_one_form(_LAST_MARKS.sub("", text).lstrip(": "))


def _in_one_form(text: str) -> str:
    """Numbers, fractions, roots, lists and spaces in one form."""
    if _CONNECTIVE.search(text) and not _ORDER.search(text) and not _has_words(_CONNECTIVE.sub(", ", text)):
        text = _CONNECTIVE.sub(", ", text)
    if "," in text and not _BRACKETS.search(text):
        thousands = _LISTED_THOUSANDS if ", " in text else _THOUSANDS
        text = thousands.sub(lambda match: match[0].replace(",", ""), text)
    if " " in text:
        text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
        text = _MIXED.sub(r"\\frac{\1}{\2}", text)
    if r"\frac" in text:
        text = _BARE_FRACTION.sub(lambda match: rf"\frac{_braced(match[1])}{_braced(match[2])}", text)
        text = _NEGATIVE_FRACTION.sub(r"-\\frac{\1}{\2}", text)
    if r"\sqrt" in text:
        text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    if "/" in text and (whole := _SLASH.fullmatch(text)):
        text = rf"\frac{{{whole[1]}}}{{{whole[2]}}}"
    if "." in text:
        text = _ZERO_TAIL.sub(r"\1\2", _POINT_FIRST.sub("0.", text))
    if " " in text:
        text = _LONE_SPACE.sub("", " ".join(text.split()))
    text = _outer_braces(text)
    return _NUMBER_WORDS.get(text.lower(), text)


def _unwrap_beside_numbers(text: str) -> str:
    """Texts without their commands; but `5\text{m}` keeps it, since `5m` would be a product."""

    def shown(match: re.Match[str]) -> str:
        content = match[1].strip()
        if is_short_unit(content):
            return rf"\unit{{{content}}}"
        return f" {match[1]} " if len(content) > 1 else match[1]

    text = _TEXT_KEPT.sub(shown, text)
    return unwrap_text(text).replace(r"\unit{", r"\text{")


def _braced(argument: str) -> str:
    return argument if argument.startswith("{") else f"{{{argument}}}"


def unwrap_text(text: str) -> str:
    """`Even` for `\\text{Even}`, at any depth. What was apart stays apart: `\\pi\\mathrm{x}` is `\\pi x`."""

    def shown(match: re.Match[str]) -> str:
        before = text[: match.start()][-1:].isalpha() and match[1][:1].isalpha()
        after = match[1][-2:].isalpha() and len(match[1]) > 1 and text[match.end() : match.end() + 1].isalnum()
        return " " * before + match[1] + " " * after

    count = 1
    while count:
        text, count = _TEXT_COMMAND.subn(shown, text)
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
