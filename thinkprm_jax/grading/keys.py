"""The key of an answer: what decides whether two answers are equal, in grading and in votes alike.

Two answers are equal where their keys are `same`: the keys' texts are equal; or one of them has the other as an
alternative reading (`x=5` may be given as `5`, `12\\%` as `12`, `16 students` as `16`); or one was written as a
decimal long enough to be rounded, and they are `near`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from thinkprm_jax.grading.values import mp

PRECISION = 6  # decimals
_MOST_PARTS = 200  # of a set that is matched part by part


@dataclass(frozen=True)
class Key:
    """What an answer says.

    Attributes:
      text: equal of answers that say the same. kind: number, expression, words, text, or a form (set, bracket,
      ...).
      parts: of a form; ordered: whether their order counts. detail: what beside them tells it from others of its
        kind: brackets, a unit, the name on the left side.
      value: of a number. places: the most decimals with which a number in it was written.
      alternatives: other readings, each of which may be meant.
      values: of an expression, at its points, for what is made of it.
      in_order: of a list, which says nothing of an order: its parts as a pair, triple and so on.
    """

    kind: str
    text: str
    parts: tuple[Key, ...] = ()
    ordered: bool = True
    value: Any = field(default=None, compare=False)
    places: int = 0
    alternatives: tuple[Key, ...] = ()
    detail: str = ""
    in_order: tuple[Key, ...] = ()
    values: Sequence[Any] = field(default=(), compare=False)

    @property
    def written(self) -> str | None:
        """The canonical spelling of a rational number: `5`, `-\\frac{1}{2}`; None for anything else."""
        if self.kind != "number" or not isinstance(self.value, Fraction):
            return None
        sign, top, bottom = "-" if self.value < 0 else "", abs(self.value.numerator), self.value.denominator
        return f"{sign}{top}" if bottom == 1 else rf"{sign}\frac{{{top}}}{{{bottom}}}"

    @property
    def is_soft(self) -> bool:
        """Whether it may be the same as a key of another text."""
        if self.alternatives or self.in_order or self.places >= PRECISION:
            return True
        return any(part.is_soft for part in self.parts)


def same(first: Key, second: Key, precision: int = PRECISION) -> bool:
    """Whether two answers are equal.

    precision: decimals. A number written with at least so many may be rounded: it is the same as a number within
    half a unit of that decimal (of numbers below 0.001, within the same share, 0.05% at 6 decimals). Shorter
    decimals, fractions, powers and roots are exact.
    """
    return _same(first, second, precision, (True, True))


def _same(first: Key, second: Key, precision: int, readings: tuple[bool, bool]) -> bool:
    """readings: of which of the two another reading may be taken. Two other readings never meet, at no depth: of
    `x=1, y=2` the values 1 and 2 are not those of `x=2, y=1`."""
    ones, twos = (first, *first.in_order), (second, *second.in_order)
    return (
        _any_alike(ones, twos, precision, readings)
        or (readings[0] and _any_alike(first.alternatives, twos, precision, (True, False)))
        or (readings[1] and _any_alike(ones, second.alternatives, precision, (False, True)))
    )


def _any_alike(ones: Sequence[Key], twos: Sequence[Key], precision: int, readings: tuple[bool, bool]) -> bool:
    return any(_alike(one, two, precision, readings) for one in ones for two in twos)


def near(first: Any, second: Any, precision: int) -> bool:
    """Whether two real numbers agree to `precision` decimals; numbers below 0.001 to as many digits as it has."""
    if isinstance(first, mp.mpc) or isinstance(second, mp.mpc):
        return isinstance(first, mp.mpc) and isinstance(second, mp.mpc) and (
            near(first.real, second.real, precision) and near(first.imag, second.imag, precision)
        )  # fmt: skip
    one, two = (mp.mpf(v.numerator) / v.denominator if isinstance(v, Fraction) else v for v in (first, second))
    largest = max(abs(one), abs(two))
    return bool(abs(one - two) <= mp.mpf(10) ** -precision / 2 * min(1, 1000 * largest))


def _alike(first: Key, second: Key, precision: int, readings: tuple[bool, bool]) -> bool:
    if first.text == second.text:
        return True
    if first.value is not None and second.value is not None:
        return max(first.places, second.places) >= precision and near(first.value, second.value, precision)
    if (
        (first.kind, first.detail) != (second.kind, second.detail)
        or len(first.parts) != len(second.parts)
        or not first.parts
    ):
        return False
    if first.ordered:
        return all(
            _same(one, two, precision, readings) for one, two in zip(first.parts, second.parts, strict=True)
        )
    return len(first.parts) <= _MOST_PARTS and _same_sets(first.parts, second.parts, precision, readings)


def _same_sets(first: Sequence[Key], second: Sequence[Key], precision: int, readings: tuple[bool, bool]) -> bool:
    left = list(second)
    for one in first:
        place = next((place for place, two in enumerate(left) if _same(one, two, precision, readings)), None)
        if place is None:
            return False
        del left[place]
    return True


def form_key(kind: str, parts: Sequence[Key], ordered: bool = True, detail: str = "") -> Key:
    """The key of a form that holds other keys. detail: what else tells it from others, its brackets."""
    texts = [part.text for part in parts]
    inner = "; ".join(texts if ordered else sorted(texts))
    return Key(kind, f"{kind}{detail}[{inner}]", tuple(parts), ordered, detail=detail)


def set_key(parts: Sequence[Key]) -> Key:
    """Of parts whose order does not count; one alone is itself."""
    distinct = list({part.text: part for part in parts}.values())
    return distinct[0] if len(distinct) == 1 else form_key("set", distinct, ordered=False)


_FRACTION = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")
_SIGNS = re.compile(r"[\\^_=<>+*/{}|]")


def text_key(normal: str) -> Key:
    """Of what is not understood: its letters and signs, fractions and roots in one spelling; of plain words,
    without case."""
    joined = " ".join(normal.split())
    if not _SIGNS.search(joined):
        return Key("words", f"words {joined.casefold()}")
    count = 1
    while count:
        joined, fractions = _FRACTION.subn(r"((\1)/(\2))", joined)
        joined, roots = _ROOT.subn(r"sqrt(\1)", joined)
        count = fractions + roots
    joined = joined.replace("\\cdot", "*").replace("\\pi", "pi")
    return Key("text", f"text {joined.replace(' ', '')}")
