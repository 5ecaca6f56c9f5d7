"""The value of an expression: exact where it is rational, else to 60 digits.

Names have the values that `thinkprm_jax.grading.points` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
from mpmath.libmp import mpf_pos

from thinkprm_jax.grading.terms import NotUnderstood, Term

Value = Any  # Fraction where it is exact, else mpmath's mpf or mpc
ValueOf = Callable[[str], Value]  # of a name
_DIGITS = 60
_BITS = 6_000  # of a fraction's parts; larger numbers are not written out
_LARGEST = 10**9  # exponent (of ten) beyond which even a float is not computed
_COUNTED = 83  # bits of a float that count: 25 digits
_CANCELLED = 150  # bits by which a sum is smaller than its parts where it is zero
_LOST = 100  # bits between two parts of a sum, of which the smaller one no longer counts
_ZERO = mpmath.mpf(10) ** -45  # beside 1, what is left of a zero
_NOTHING = mpmath.mpf(10) ** -50  # what is left of a zero of a function
_UNBOUNDED = mpmath.mpf(10) ** 40  # what is left of its pole
_KNOWN_FRACTIONS = 10**6  # largest denominator of a fraction that is recognised in a float
_MOST_FACTORIAL = 2_000
mp = mpmath.mp.clone()
mp.dps = _DIGITS


def _no_name(name: str) -> Value:
    raise NotUnderstood(f"{name} has no value")


def evaluate(term: Term, value_of: ValueOf = _no_name, sign: int = 1) -> Value:
    """The value of an expression.

    value_of: of its names, for example one of `points_of`. sign: of every `\\pm`. Raises NotUnderstood where it
    has no value, or none that can be told from its neighbours.
    """
    head = term.head
    if head == "number":
        return term.value
    if head == "name":
        return value_of(term.text)
    if head in _CONSTANTS:
        return _CONSTANTS[head]
    parts = [evaluate(part, value_of, sign) for part in term.parts]
    if head in ("pm", "mp"):
        return parts[0] if (sign > 0) == (head == "pm") else -parts[0]
    if head == "apply":
        return value_of(f"{term.text}({';'.join(map(spelled, parts))})")
    operation = _OPERATIONS.get(head)
    if operation is None:
        raise NotUnderstood(head)
    try:
        value = operation(*parts)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise NotUnderstood(str(error)) from error
    return value if type(value) is mp.mpf and value._mpf_[1] else tidy(value)


def ratio(value: Value, scale: Value) -> Value:
    """Of two values."""
    return tidy(_divide(value, scale))


def digits(value: Value) -> str:
    """A spelling that equal numbers share: fractions exactly, others by 25 digits."""
    if type(value) is Fraction:
        return str(value)
    if isinstance(value, mp.mpc):
        return f"{digits(rational(value.real))} {digits(rational(value.imag))}i"
    return str(mp.nstr(value, 25, strip_zeros=False))


def spelled(value: Value) -> str:
    """A short spelling of the value of an expression at a point, the same whether it was computed exactly or not;
    of None, nothing."""
    if value is None:
        return ""
    if isinstance(value, mp.mpc):
        return f"{spelled(value.real)},{spelled(value.imag)}"
    sign, mantissa, exponent, _ = mpf_pos(as_float(value)._mpf_, _COUNTED, "n")
    return f"{'-' if sign else ''}{mantissa:x}p{exponent}"


def tidied(real: str, imaginary: str = "0") -> Value:
    """The value that two decimals or fractions spell."""
    if imaginary == "0":
        return Fraction(real) if "." not in real else rational(mp.mpf(real))
    return tidy(mp.mpc(mp.mpf(real), mp.mpf(imaginary)))


def tidy(value: Value) -> Value:
    """A zero where nothing else is left, and a real number where nothing imaginary is."""
    if type(value) is Fraction:
        if value.numerator.bit_length() + value.denominator.bit_length() > _BITS:
            return as_float(value)
        return value
    if isinstance(value, int):
        return Fraction(value)
    if not mp.isfinite(value):
        raise NotUnderstood("no finite value")
    if isinstance(value, mp.mpc):
        if abs(value.imag) <= _ZERO * max(1, abs(value.real)):
            return tidy(value.real)
        if abs(value.real) <= _ZERO * max(1, abs(value.imag)):
            return mp.mpc(0, value.imag)
        return value
    return value if value else Fraction(0)


def rational(value: Value) -> Value:
    """The fraction of a small denominator that a float is, to its last digits; else the value."""
    if not isinstance(value, mp.mpf):
        return value
    size = abs(value)
    if size > 10**12:
        nearest = int(mp.nint(value))
        return Fraction(nearest) if size < 10**25 and abs(value - nearest) <= _ZERO * size else value
    sign, mantissa, exponent, _ = value._mpf_
    if not mantissa:
        return Fraction(0)
    top, bottom = (mantissa << exponent, 1) if exponent >= 0 else (mantissa, 1 << -exponent)
    # Its continued fraction: a rational number is where what is left is next to nothing.
    tops, bottoms = (0, 1), (1, 0)
    while True:
        whole, left = divmod(top, bottom)
        tops, bottoms = (tops[1], whole * tops[1] + tops[0]), (bottoms[1], whole * bottoms[1] + bottoms[0])
        if bottoms[1] > _KNOWN_FRACTIONS:
            return value
        if not left or bottom.bit_length() - left.bit_length() > _CANCELLED - 2 * bottoms[1].bit_length():
            return Fraction(-tops[1] if sign else tops[1], bottoms[1]) if tops[1] else value
        top, bottom = bottom, left


def as_float(value: Value) -> Value:
    """The same value as a number of mpmath, which compares with all others."""
    if type(value) is not Fraction:
        return value
    top = mp.mpf(value.numerator)
    return top if value.denominator == 1 else top / value.denominator


def as_factor(value: Value) -> Value:
    """The same value as something that mpmath multiplies quickly."""
    if type(value) is not Fraction:
        return value
    return value.numerator if value.denominator == 1 else mp.mpf(value.numerator) / value.denominator


def _magnitude(value: Value) -> float:
    """log2 of the size; -inf of zero."""
    if type(value) is Fraction:
        return value.numerator.bit_length() - value.denominator.bit_length() if value else -math.inf
    return float(mp.mag(value)) if value else -math.inf


def add(first: Value, second: Value) -> Value:
    if type(first) is Fraction:
        if type(second) is Fraction:
            return first + second
        first = as_float(first)
    elif type(second) is Fraction:
        second = as_float(second)
    total = first + second
    if type(total) is mp.mpf:
        one, two, both = first._mpf_, second._mpf_, total._mpf_
        if one[1] and two[1]:
            one_size, two_size = one[2] + one[3], two[2] + two[3]
            if abs(one_size - two_size) > _LOST:
                raise NotUnderstood("a sum of which one part is lost in the other")
            if not both[1] or both[2] + both[3] < max(one_size, two_size) - _CANCELLED:
                return Fraction(0)
    elif first and second and abs(_magnitude(first) - _magnitude(second)) > _LOST:
        raise NotUnderstood("a sum of which one part is lost in the other")
    return total


def _multiply(first: Value, second: Value) -> Value:
    if type(first) is Fraction and type(second) is Fraction:
        return first * second
    return as_factor(first) * as_factor(second)


def _divide(first: Value, second: Value) -> Value:
    if second == 0:
        raise NotUnderstood("division by zero")
    if type(first) is Fraction and type(second) is Fraction:
        return first / second
    return as_factor(first) / as_factor(second)


def _power(base: Value, exponent: Value) -> Value:
    exponent = rational(exponent)
    if base is _E:
        _check_size(_bounded(exponent))
        return mp.exp(as_float(exponent)) if exponent else Fraction(1)
    if type(exponent) is Fraction:
        if exponent.denominator > 1 and exponent.denominator % 2 and _is_negative(base):
            # The real root, which is what schools mean by the third root of -8.
            size = _power(-base, exponent)
            return -size if exponent.numerator % 2 else size
        if type(base) is Fraction:
            exact = _exact_power(base, exponent)
            if exact is not None:
                return exact
        elif exponent.denominator == 1 and abs(exponent) < 1000:
            return base ** int(exponent)
    _check_size(abs(_magnitude(base)) * abs(float(mp.mag(as_float(exponent)) and _bounded(exponent))))
    return mp.power(as_float(base), as_float(exponent))


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    """Where it is a fraction that can be written out."""
    if base == 0:
        if exponent <= 0:
            raise NotUnderstood("a power of zero")
        return Fraction(0)
    root = base if exponent.denominator == 1 else _exact_root(base, exponent.denominator)
    if root is None:
        return None
    bits = (root.numerator.bit_length() + root.denominator.bit_length()) * abs(exponent.numerator)
    return root**exponent.numerator if bits <= _BITS or root in (1, -1) else None


def _is_negative(value: Value) -> bool:
    return not isinstance(value, mp.mpc) and value < 0


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
    return _power(base, _divide(Fraction(1), rational(degree)))


def _factorial(value: Value) -> Value:
    value = rational(value)
    if type(value) is Fraction and value.denominator == 1 and 0 <= value <= _MOST_FACTORIAL:
        return Fraction(math.factorial(int(value)))
    if _magnitude(value) > 20:
        raise NotUnderstood("a factorial out of range")
    return mp.gamma(as_float(value) + 1)


def _binomial(n: Value, k: Value) -> Value:
    n, k = rational(n), rational(k)
    if type(n) is Fraction and type(k) is Fraction and n.denominator == k.denominator == 1:
        if not 0 <= n <= _MOST_FACTORIAL or k < 0:
            raise NotUnderstood("a binomial out of range")
        return Fraction(math.comb(int(n), int(k)))
    return mp.binomial(as_float(n), as_float(k))


def _modulo(value: Value, modulus: Value) -> Value:
    value, modulus = rational(value), rational(modulus)
    if type(value) is not Fraction or type(modulus) is not Fraction or modulus == 0:
        raise NotUnderstood("a remainder of numbers that are not rational")
    return value - modulus * math.floor(value / modulus)


def _rounded(rounding: Callable[[Fraction], int], slow: Callable[[Any], Any]) -> Callable[[Value], Value]:
    def apply(value: Value) -> Value:
        value = rational(value)
        if type(value) is Fraction:
            return Fraction(rounding(value))
        if isinstance(value, mp.mpc) or _magnitude(value) > 100:
            raise NotUnderstood("nothing to be rounded")
        return Fraction(int(slow(value)))

    return apply


def _of_whole_numbers(function: Callable[..., int]) -> Callable[..., Value]:
    def apply(*values: Value) -> Value:
        values = tuple(map(rational, values))
        if not all(type(value) is Fraction and value.denominator == 1 for value in values):
            raise NotUnderstood("a common divisor of numbers that are not whole")
        return Fraction(function(*map(int, values)))

    return apply


def _chosen(choose: Callable[..., Any]) -> Callable[..., Value]:
    def apply(*values: Value) -> Value:
        if any(isinstance(value, mp.mpc) for value in values):
            raise NotUnderstood("complex numbers have no order")
        return choose(values, key=as_float)

    return apply


def _function(function: Callable[[Any], Any], largest: int = 200, poles: bool = False) -> Callable[[Value], Value]:
    """A function of mpmath. largest: bits of an argument of which it still knows all digits. poles: whether a very
    large value is one."""

    def apply(value: Value) -> Value:
        if _magnitude(value) > largest:
            raise NotUnderstood("an argument out of range")
        found = function(as_float(value))
        size = abs(found)
        if size < _NOTHING:
            return Fraction(0)
        if size > _UNBOUNDED and poles:
            raise NotUnderstood("a pole")
        return found

    return apply


def _logarithm(value: Value) -> Value:
    if value == 0:
        raise NotUnderstood("the logarithm of zero")
    found = mp.log(as_float(value))
    return found if abs(found) > _NOTHING else Fraction(0)


_E = +mp.e
_CONSTANTS: dict[str, Value] = {"pi": +mp.pi, "e": _E, "i": mp.mpc(0, 1)}
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "+": add,
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
    "exp": lambda value: _power(_E, value),
    "arcsin": _function(mp.asin),
    "arccos": _function(mp.acos),
    "arctan": _function(mp.atan),
    "arccot": _function(mp.acot),
    **{name: _function(getattr(mp, name), 80, poles=True) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: _function(getattr(mp, name), 20) for name in ("sinh", "cosh", "tanh", "coth")},
}
