"""The value of an expression: exact where it is rational, else to 60 digits.

Names have no value, so each gets a fixed one, drawn from its spelling: two expressions that agree at several such
points are the same function. This decides in less than a millisecond what simplifying may never find.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath

from thinkprm_jax.grading.terms import NotUnderstood, Term

Value = Any  # Fraction where it is exact, else mpmath's mpf or mpc
POINTS = 3
_DIGITS = 60
_BITS = 6_000  # of a fraction's parts; larger numbers are not written out
_LARGEST = 10**9  # exponent (of ten) beyond which even a float is not computed
_ZERO = mpmath.mpf(10) ** -45  # beside 1, what is left of a zero
_KNOWN_FRACTIONS = 10**6  # largest denominator of a fraction that is recognised in a float
_WIDE = 99_991
_MOST_FACTORIAL = 2_000
mp = mpmath.mp.clone()
mp.dps = _DIGITS


def evaluate(term: Term, point: int = 0, sign: int = 1, values: dict[str, Fraction] | None = None) -> Value:
    """The value of an expression at one of the `POINTS`.

    sign: of every `\\pm`. values: of names, instead of the drawn ones. Raises NotUnderstood where it has none, or
    none that can be told from its neighbours.
    """
    head = term.head
    if head == "number":
        return term.value
    if head == "name":
        return (values or {}).get(term.text) if values and term.text in values else drawn(term.text, point)
    if head in _CONSTANTS:
        return _CONSTANTS[head]()
    parts = [evaluate(part, point, sign, values) for part in term.parts]
    if head in ("pm", "mp"):
        return parts[0] if (sign > 0) == (head == "pm") else -parts[0]
    if head == "apply":
        return drawn(f"{term.text}({';'.join(map(digits, parts))})", point)
    operation = _OPERATIONS.get(head)
    if operation is None:
        raise NotUnderstood(head)
    try:
        return _tidy(operation(*parts))
    except (ArithmeticError, ValueError, TypeError) as error:
        raise NotUnderstood(str(error)) from error


def values_of(term: Term, sign: int = 1) -> list[Value]:
    """The values at all points; None at the one where there may be none (a logarithm rounded to a whole
    number)."""
    found: list[Value] = []
    stepped = has_head(term, "floor", "ceil", "bmod")
    for point in range(POINTS):
        # What is rounded tells two functions apart only where it is large.
        values = {name: _WIDE * drawn(name, point) for name in names_in(term)} if stepped else None
        try:
            found.append(evaluate(term, point, sign, values))
        except NotUnderstood:
            if None in found:
                raise
            found.append(None)
    return found


def names_in(term: Term) -> frozenset[str]:
    """The names whose value decides that of `term`."""
    own = {term.text} if term.head in ("name", "apply") else set()
    return frozenset(own).union(*map(names_in, term.parts))


def has_head(term: Term, *heads: str) -> bool:
    return term.head in heads or any(has_head(part, *heads) for part in term.parts)


def digits(value: Value) -> str:
    """A spelling that equal values share: fractions exactly, others by 25 digits."""
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, mp.mpc):
        return f"{digits(_rational(value.real))} {digits(_rational(value.imag))}i"
    return str(mp.nstr(value, 25, strip_zeros=False))


def tidied(real: str, imaginary: str = "0") -> Value:
    """The value that two decimals or fractions spell."""
    if imaginary == "0" and "." not in real:
        return Fraction(real)
    return _tidy(mp.mpc(mp.mpf(real), mp.mpf(imaginary)))


def drawn(name: str, point: int) -> Fraction:
    """The value of a name at a point, a fraction like no other: in (1, 2), then (-2, -1), then (0, 1)."""
    seed = hashlib.sha256(name.encode()).digest()[4 * point : 4 * point + 4]
    place = Fraction(round(int.from_bytes(seed, "big") * 99991 / (1 << 32)) + 1, 99991 + 2)
    return (1 + place, -1 - place, place)[point % POINTS]


def _tidy(value: Value) -> Value:
    """A fraction where a float is one; a real number where nothing imaginary is left."""
    if isinstance(value, Fraction):
        if value.numerator.bit_length() + value.denominator.bit_length() > _BITS:
            return as_float(value)
        return value
    if isinstance(value, int):
        return Fraction(value)
    if not mp.isfinite(value):
        raise NotUnderstood("no finite value")
    if isinstance(value, mp.mpc):
        if abs(value.imag) <= _ZERO * max(1, abs(value.real)):
            return _rational(value.real)
        if abs(value.real) <= _ZERO * max(1, abs(value.imag)):
            return mp.mpc(0, value.imag)
        return value
    return _rational(value)


def _rational(value: Value) -> Value:
    """The fraction of a small denominator that a float is, to its last digits; else the float."""
    size = abs(value)
    if size < _ZERO:
        # A float so small may be what rounding left of a zero, or a number of its own.
        if size < mp.mpf(10) ** -55:
            return value if size and size < mp.mpf(10) ** -70 else Fraction(0)
        return value
    if size > 10**12:
        nearest = int(mp.nint(value))
        return Fraction(nearest) if size < 10**25 and abs(value - nearest) <= _ZERO * size else value
    sign, man, exp, _ = value._mpf_
    exact = Fraction(-man if sign else man) * Fraction(2) ** exp
    near = exact.limit_denominator(_KNOWN_FRACTIONS)
    return near if near and abs(exact - near) < Fraction(1, 10**45) * max(1, abs(near)) else value


def as_float(value: Value) -> Value:
    """The same value as a number of mpmath, which compares with all others."""
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _magnitude(value: Value) -> float:
    """log2 of the size; -inf of zero."""
    if isinstance(value, Fraction):
        return value.numerator.bit_length() - value.denominator.bit_length() if value else -math.inf
    return float(mp.mag(value)) if value else -math.inf


def _add(first: Value, second: Value) -> Value:
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first + second
    apart = _magnitude(first) - _magnitude(second)
    if math.isfinite(apart) and abs(apart) > 100:
        raise NotUnderstood("a sum of which one part is lost in the other")
    return as_float(first) + as_float(second)


def _multiply(first: Value, second: Value) -> Value:
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first * second
    return as_float(first) * as_float(second)


def _divide(first: Value, second: Value) -> Value:
    if second == 0:
        raise NotUnderstood("division by zero")
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first / second
    return as_float(first) / as_float(second)


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if base == 0:
            if exponent <= 0:
                raise NotUnderstood("a power of zero")
            return Fraction(0)
        if exponent.denominator == 1:
            bits = (base.numerator.bit_length() + base.denominator.bit_length()) * abs(exponent.numerator)
            if bits <= _BITS or base in (1, -1):
                return base ** int(exponent)
        else:
            root = _exact_root(base, exponent.denominator)
            if root is not None:
                return _power(root, Fraction(exponent.numerator))
    _check_size(abs(_magnitude(base)) * abs(float(mp.mag(as_float(exponent)) and _bounded(exponent))))
    return mp.power(as_float(base), as_float(exponent))


def _bounded(value: Value) -> float:
    if _magnitude(value) > 60:
        raise NotUnderstood("an exponent out of range")
    return float(abs(as_float(value)))


def _check_size(bits: float) -> None:
    if bits > _LARGEST:
        raise NotUnderstood("a number out of range")


def _exact_root(base: Fraction, degree: int) -> Fraction | None:
    """The rational root of a rational number, where it has one."""
    if degree > 64 or base < 0:
        return None
    roots = []
    for number in (base.numerator, base.denominator):
        root = int(mp.nint(mp.root(number, degree))) if number.bit_length() < 150 else math.isqrt(number)
        if root**degree != number:
            return None
        roots.append(root)
    return Fraction(roots[0], roots[1])


def _root(base: Value, degree: Value) -> Value:
    if not isinstance(degree, Fraction) or degree == 0:
        return _power(base, _divide(Fraction(1), degree))
    if isinstance(base, Fraction) and base < 0 and degree.denominator == 1 and degree % 2 == 1:
        return -_power(-base, 1 / degree)  # the real root
    return _power(base, 1 / degree)


def _factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= _MOST_FACTORIAL:
        return Fraction(math.factorial(int(value)))
    if _magnitude(value) > 20:
        raise NotUnderstood("a factorial out of range")
    return mp.gamma(as_float(value) + 1)


def _binomial(n: Value, k: Value) -> Value:
    if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1:
        if not 0 <= n <= _MOST_FACTORIAL or k < 0:
            raise NotUnderstood("a binomial out of range")
        return Fraction(math.comb(int(n), int(k)))
    return mp.binomial(as_float(n), as_float(k))


def _modulo(value: Value, modulus: Value) -> Value:
    if not isinstance(value, Fraction) or not isinstance(modulus, Fraction) or modulus == 0:
        raise NotUnderstood("a remainder of numbers that are not rational")
    return value - modulus * math.floor(value / modulus)


def _rounded(rounding: Callable[[Fraction], int], slow: Callable[[Any], Any]) -> Callable[[Value], Value]:
    def apply(value: Value) -> Value:
        if isinstance(value, Fraction):
            return Fraction(rounding(value))
        if isinstance(value, mp.mpc) or _magnitude(value) > 100:
            raise NotUnderstood("nothing to be rounded")
        return Fraction(int(slow(value)))

    return apply


def _of_whole_numbers(function: Callable[..., int]) -> Callable[..., Value]:
    def apply(*values: Value) -> Value:
        if not all(isinstance(value, Fraction) and value.denominator == 1 for value in values):
            raise NotUnderstood("a common divisor of numbers that are not whole")
        return Fraction(function(*map(int, values)))

    return apply


def _chosen(choose: Callable[..., Any]) -> Callable[..., Value]:
    def apply(*values: Value) -> Value:
        if any(isinstance(value, mp.mpc) for value in values):
            raise NotUnderstood("complex numbers have no order")
        return choose(values, key=as_float)

    return apply


def _function(function: Callable[[Any], Any], largest: int = 200) -> Callable[[Value], Value]:
    """A function of mpmath. largest: bits of an argument of which it still knows all digits."""

    def apply(value: Value) -> Value:
        if _magnitude(value) > largest:
            raise NotUnderstood("an argument out of range")
        return function(as_float(value))

    return apply


def _logarithm(value: Value) -> Value:
    if value == 0:
        raise NotUnderstood("the logarithm of zero")
    return mp.log(as_float(value))


_CONSTANTS: dict[str, Callable[[], Value]] = {
    "pi": lambda: +mp.pi,
    "e": lambda: +mp.e,
    "i": lambda: mp.mpc(0, 1),
}
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "+": _add,
    "neg": lambda value: -value,
    "*": _multiply,
    "/": _divide,
    "^": _power,
    "root": _root,
    "factorial": _factorial,
    "binom": _binomial,
    "bmod": _modulo,
    "percent": lambda value: _divide(value, Fraction(100)),
    "degree": lambda value: _multiply(value, mp.pi / 180),
    "abs": lambda value: abs(value),
    "floor": _rounded(math.floor, mp.floor),
    "ceil": _rounded(math.ceil, mp.ceil),
    "gcd": _of_whole_numbers(math.gcd),
    "lcm": _of_whole_numbers(math.lcm),
    "max": _chosen(max),
    "min": _chosen(min),
    "ln": _logarithm,
    "log": lambda value: _logarithm(value) / mp.log(10),
    "lg": lambda value: _logarithm(value) / mp.log(10),
    "exp": _function(mp.exp, 30),
    "arcsin": _function(mp.asin),
    "arccos": _function(mp.acos),
    "arctan": _function(mp.atan),
    "arccot": _function(mp.acot),
    **{name: _function(getattr(mp, name), 80) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: _function(getattr(mp, name), 20) for name in ("sinh", "cosh", "tanh", "coth")},
}
