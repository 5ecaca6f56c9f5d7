"""The tree of an answer, and the numbers in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from thinkprm_jax.grading.units import Unit

_BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
               "twelve": 12, "sixteen": 16}  # fmt: skip
_SHOWN_PERIOD = re.compile(r"(\d+\.\d*?)(?:(\d)\2{2,}|(\d{2,6}?)\3+)\\[lc]?dots")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class NotUnderstood(Exception):
    """The grammar has no place for something in an answer."""


class Term(NamedTuple):  # made by the thousand, which takes a dataclass four times as long
    """A node of an answer's tree.

    Attributes:
      head: what it is: number, name, text, an operation (`+`, `*`, `^`, `sqrt`, ...), or a form (list, set,
        bracket, relation, union, builder, matrix, quantity, percent, ratio, congruence).
      text: a name's spelling; a form's brackets or relations.
      value: of a number. places: decimals that a number was written with.
      unit: of a quantity; None where `text` is a label (`16 students`).
    """

    head: str
    parts: tuple[Term, ...] = ()
    text: str = ""
    value: Fraction = Fraction(0)
    places: int = 0
    unit: Unit | None = None


def walk(term: Term) -> Iterator[Term]:
    """A term and all that it consists of."""
    left = [term]
    while left:
        one = left.pop()
        yield one
        left.extend(one.parts)


def names_in(term: Term) -> set[str]:
    """The names whose value decides that of `term`."""
    return {one.text for one in walk(term) if one.head in ("name", "apply")}


def has_head(term: Term, *heads: str) -> bool:
    return any(one.head in heads for one in walk(term))


def read_number(text: str) -> Term:
    if len(text) > 1000:
        raise NotUnderstood("a number of more than 1,000 digits")
    if text.isdigit():
        return Term("number", value=Fraction(int(text)))
    mantissa = text.lower().partition("e")[0]
    exponent = int(text.lower().partition("e")[2] or 0)
    if abs(exponent) > 5000:
        raise NotUnderstood("a number out of range")
    return Term(
        "number", value=Fraction(mantissa) * Fraction(10) ** exponent, places=len(mantissa.partition(".")[2])
    )


def read_repeating(text: str) -> Fraction:
    """`0.1\\overline{6}`, `0.1\\dot{6}`, `0.\\dot{1}4285\\dot{7}`, `0.1(6)` and `0.1666\\dots`."""
    shown = _SHOWN_PERIOD.match(text)
    if shown is not None:
        text = f"{shown[1]}({shown[2] or shown[3]})"
    whole, _, decimals = text.partition(".")
    for mark in ("\\overline", "(", "\\dot"):
        if mark in decimals:
            fixed, _, repeated = decimals.partition(mark)
            period = "".join(character for character in repeated if character.isdigit())
            shift = 10 ** len(fixed)
            start = Fraction(int(whole + fixed), shift)
            return start + Fraction(int(period), (10 ** len(period) - 1) * shift)
    raise NotUnderstood(text)


def read_based(text: str) -> Fraction:
    """`52_8`, `0.0011_{2}`."""
    digits, _, base = text.partition("_")
    digits, _, broken = digits.partition(".")
    base = base.strip("{} ")
    number = int(base) if base.isdigit() else _BASE_WORDS.get(base, 0)
    if not 2 <= number <= 36 or any(_DIGITS.index(digit) >= number for digit in digits + broken):
        raise NotUnderstood(text)
    return Fraction(int(digits + broken, number), number ** len(broken))
