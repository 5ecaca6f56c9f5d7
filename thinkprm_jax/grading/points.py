"""The points at which expressions are compared.

Names have no value, so each gets fixed ones, drawn from its spelling: two expressions that agree at several
independent points are the same function. This decides in less than a millisecond what simplifying may never find.
Where an expression is rounded (floors, remainders), two functions can agree almost everywhere: these are compared
at many whole numbers, small ones first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache, partial

from thinkprm_jax.grading.terms import NotUnderstood, Term, names_in, walk
from thinkprm_jax.grading.values import Value, ValueOf, add, as_float, evaluate, tidy

POINTS = 4
_WIDE = 99_991
_STEPS = frozenset(("floor", "ceil", "bmod", "gcd", "lcm"))
_WHOLE_POINTS, _LARGE_POINTS, _BROKEN_POINTS = 64, 16, 16
_COUNTING = frozenset("nmkijlpqNMK")  # first letters of names that stand for whole numbers


def points_of(*terms: Term) -> Sequence[ValueOf]:
    """The points at which these terms are compared with others."""
    return _STEPPED_POINTS if any(map(is_stepped, terms)) else _REAL_POINTS


def values_of(term: Term, points: Sequence[ValueOf], sign: int = 1) -> list[Value]:
    """The values at points; None at those where it has none (a logarithm at a pole). Raises NotUnderstood where it
    has too few."""
    found: list[Value] = []
    for value_of in points:
        try:
            found.append(evaluate(term, value_of, sign))
        except NotUnderstood:
            found.append(None)
    return enough(found)


def enough(values: list[Value]) -> list[Value]:
    """The values themselves. Raises NotUnderstood where more than half of them are None."""
    if 2 * values.count(None) > len(values):
        raise NotUnderstood("no value at most points")
    return values


def differences(first: Sequence[Value], second: Sequence[Value]) -> list[Value]:
    """Of the values at each point; None where one has none."""
    found: list[Value] = []
    for one, two in zip(first, second, strict=True):
        try:
            found.append(None if one is None or two is None else tidy(add(one, -two)))
        except NotUnderstood:
            found.append(None)
    return enough(found)


def is_stepped(term: Term) -> bool:
    """Whether something that depends on a name is rounded."""
    return any(one.head in _STEPS and bool(names_in(one)) for one in walk(term))


@lru_cache(maxsize=4096)
def drawn(name: str, point: int) -> Fraction:
    """The value of a name at one of the `POINTS`, a fraction like no other: in (1, 2); there, but mirrored, so
    that the larger of two names is now the smaller; in (-14, -6); in (6, 14)."""
    seed = hashlib.sha256(name.encode()).digest()[4 * max(0, point - 1) :]
    place = Fraction(round(int.from_bytes(seed[:4], "big") * _WIDE / (1 << 32)) + 1, _WIDE + 2)
    return (1 + place, 2 - place, -6 - 8 * place, 6 + 8 * place)[point]


@lru_cache(maxsize=4096)
def _drawn_float(point: int, name: str) -> Value:
    return as_float(drawn(name, point))


@lru_cache(maxsize=65536)
def _stepped(number: int, name: str) -> Fraction:
    """The value of a name at a point where rounding is compared. Every name takes each of 1 to 64, in an order of
    its own; then large numbers; then, unless it counts something, broken and negative ones."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    if number < _WHOLE_POINTS:
        return Fraction((number * (seed % 1024 * 2 + 1) + seed // 1024) % _WHOLE_POINTS + 1)
    mixed = int.from_bytes(hashlib.sha256(f"{number} {name}".encode()).digest()[:8], "big")
    if number < _WHOLE_POINTS + _LARGE_POINTS or name[0] in _COUNTING:
        return Fraction(mixed % 5000 + 65)
    return Fraction(mixed % (24 * 97), 97) - 8


_REAL_POINTS = tuple(partial(_drawn_float, point) for point in range(POINTS))
_STEPPED_POINTS = tuple(partial(_stepped, n) for n in range(_WHOLE_POINTS + _LARGE_POINTS + _BROKEN_POINTS))
