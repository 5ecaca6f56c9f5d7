"""Relations, and the numbers that satisfy them: equations, inequalities, intervals and their unions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from thinkprm_jax.grading.keys import Key, form_key, set_key
from thinkprm_jax.grading.points import differences, points_of, values_of
from thinkprm_jax.grading.terms import NotUnderstood, Term, has_head, names_in
from thinkprm_jax.grading.values import Value, as_float, digits, evaluate, mp, ratio, rational, spelled

KeyOf = Callable[[Term], Key]
_NAMED = ("name", "apply", "e", "i")
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!="}


_INFINITE = Key("infinity", "infinity")


@dataclass(frozen=True)
class _Bound:
    """An end of an interval: a real number, or infinite (value None, on the side where it stands)."""

    value: Any
    closed: bool = False
    key: Key = _INFINITE

    @property
    def place(self) -> Any:
        """To be compared with the places of other ends; 0 where it is infinite."""
        return as_float(self.value) if self.value is not None else as_float(Fraction(0))


@dataclass(frozen=True)
class _Interval:
    low: _Bound
    high: _Bound


def relation_key(term: Term, key_of: KeyOf) -> Key:
    """The key of parts with `=`, `<`, `\\in` and so on between them. Raises NotUnderstood."""
    relations = term.text.split()
    if "~" in relations:
        # What is approximately equal is not the answer; but `x \approx 3` names it.
        first = relations.index("~")
        if first == 0 and not names_in(term.parts[0]):
            return _rounded(term.parts[0], term.parts[1], key_of)
        if first == 0:
            return _equality(term.parts[:2], key_of)
        if first == 1 and relations[0] != "=":
            raise NotUnderstood("an approximate relation")
        return relation_key(Term("relation", term.parts[: first + 1], text=" ".join(relations[:first])), key_of)
    if set(relations) == {"="}:
        return _equality(term.parts, key_of)
    if relations == ["in"]:
        name, values = term.parts
        if values.head == "set":
            return key_of(_each(name, values.parts))
        return _solutions(_name_of(name), region_key(values, key_of))
    if set(relations) <= set(_FLIPPED):
        return _inequality(term, relations, key_of)
    raise NotUnderstood("a chain of different relations")


def _each(name: Term, values: Sequence[Term]) -> Term:
    """`x = 1, x = 2` of `x \\in \\{1, 2\\}`."""
    equations = tuple(Term("relation", (name, value), text="=") for value in values)
    return equations[0] if len(equations) == 1 else Term("list", equations, text=",")


def names_apart(parts: Sequence[Term]) -> bool:
    """Whether these are equations that give a value each to a name of its own: `a = 3, b = 4`."""
    if not all(part.head == "relation" and part.text == "=" and part.parts[0].head in _NAMED for part in parts):
        return False
    return len({_written(part.parts[0]) if _names(part.parts[0]) else "" for part in parts}) == len(parts)


def _rounded(exact: Term, shown: Term, key_of: KeyOf) -> Key:
    """Of `2\\sqrt{3} \\approx 3.46` the exact side, where the other one is about as large."""
    bare = (side.parts[0] if side.head == "quantity" else side for side in (exact, shown))
    value, about = (as_float(evaluate(side)) for side in bare)
    if abs(value - about) > abs(value) / 20:
        raise NotUnderstood("a false approximation")
    return key_of(exact)


def region_key(term: Term, key_of: KeyOf) -> Key:
    """The key of a set of numbers: an interval, a union of some, a set by its condition."""
    try:
        return _region(_merged(_intervals(term, key_of)))
    except NotUnderstood:
        if term.head == "union":
            return form_key("union", [key_of(part) for part in term.parts], ordered=False)
        if term.head in ("builder", "reals"):
            raise
        return key_of(term)


def joined_key(term: Term, key_of: KeyOf) -> Key | None:
    """The key of inequalities of one variable joined by `or`; None where they are anything else."""
    try:
        solved = [_solved(part, part.text.split(), key_of) for part in term.parts]
    except NotUnderstood:
        return None
    names = {name for name, _ in solved}
    if len(names) != 1:
        return None
    return _solutions(names.pop(), _region(_merged([one for _, intervals in solved for one in intervals])))


# Equations


def _equality(parts: Sequence[Term], key_of: KeyOf) -> Key:
    left, right = parts[0], parts[-1]
    if left.head == right.head == "bracket" and left.text == right.text == "()":
        pairs = tuple(Term("relation", pair, text="=") for pair in zip(left.parts, right.parts, strict=False))
        if len(parts) == 2 and len(left.parts) == len(right.parts) and names_apart(pairs):
            return key_of(Term("list", pairs, text=","))
    shared = tuple(Term("relation", (name, right), text="=") for name in parts[:-1])
    if len(parts) > 2 and names_apart(shared) and not names_in(right):
        return key_of(Term("list", shared, text=","))  # `x = y = 2`
    if right.head == "set" and len(parts) == 2 and left.head in ("name", "bracket"):
        return key_of(_each(left, right.parts))
    values = _without_sign(right)
    if len(values) > 1:
        each = [_equality((left, value), key_of) for value in values]
        listed = set_key([key_of(value) for value in values])
        return replace(set_key(each), alternatives=(listed,))
    try:
        equation = _equation(left, right, key_of, chain=len(parts) > 2)
        if len(parts) == 2:
            return equation
        # A chain says what its ends say, if it is true; one that contradicts itself says nothing.
        middle = [key_of(part).text for part in parts[1:]]
        return equation if len(set(middle)) == 1 else form_key("chain", [key_of(part) for part in parts])
    except NotUnderstood:
        if not _names(left):
            raise
        value = key_of(right)
        name = _written(left)
        readings = (value, *value.alternatives)
        return Key("equation", f"{name} = {value.text}", (value,), alternatives=readings, detail=name)


def _equation(left: Term, right: Term, key_of: KeyOf, chain: bool) -> Key:
    """Both sides are expressions: what counts is where they are equal, so `y = x` is `2x - 2y = 0`."""
    if not names_in(left) and not names_in(right):
        first, value = key_of(left), key_of(right)
        readings = (value, *value.alternatives) if first.text == value.text else ()  # else it is false
        return Key("equation", f"{first.text} = {value.text}", alternatives=readings)
    value = key_of(right)
    apart = _apart(left, right, value.values)
    if not any(apart):
        return Key("equation", f"identity {value.text}", alternatives=(value, *value.alternatives))
    text = f"0 = {_up_to_scale(apart, signed=False)}"
    if not _names(left) and not chain:
        return Key("equation", text)
    return Key("equation", text, alternatives=(value, *value.alternatives))


def _apart(left: Term, right: Term, known: Sequence[Value] = ()) -> list[Value]:
    """How far the sides of a relation are apart, at each point. known: the values of the right one, if at hand."""
    points = points_of(left, right)
    values = known if len(known) == len(points) else values_of(right, points)
    return differences(values_of(left, points), values)


def _up_to_scale(values: Sequence[Value], signed: bool) -> str:
    """A spelling of values, the same where they are all multiplied by a (positive) constant."""
    scale = next((value for value in values if value is not None and value != 0), None)
    if scale is None or isinstance(scale, mp.mpc):
        raise NotUnderstood("a relation that always holds")
    if signed:
        scale = abs(scale)
    texts = [spelled(None if value is None else ratio(value, scale)) for value in values]
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:32]


def _without_sign(term: Term) -> list[Term]:
    """Both values of a term with `\\pm`."""
    if not has_head(term, "pm", "mp") or term.head in ("list", "set", "bracket"):
        return [term]
    return [_signed(term, sign) for sign in (1, -1)]


def _signed(term: Term, sign: int) -> Term:
    parts = tuple(_signed(part, sign) for part in term.parts)
    if term.head in ("pm", "mp"):
        return parts[0] if (sign > 0) == (term.head == "pm") else Term("neg", parts)
    return term._replace(parts=parts)


def _names(term: Term) -> bool:
    """Whether a left side of `=` only names what is right of it: `x`, `f(x)`, `(p, q)`, `AB:CD`, `|AB|`."""
    if term.head in _NAMED:
        return True
    if term.head in ("bracket", "ratio"):
        return all(map(_names, term.parts))
    # Of geometry: a product, quotient or length of what is written in two capitals.
    segments = all(len(part.text) > 1 and part.text.isupper() for part in term.parts if part.head == "name")
    return term.head in ("/", "abs", "*") and segments and all(map(_names, term.parts))


def _written(term: Term) -> str:
    """The names on a left side, as they were written."""
    if term.head in ("name", "e", "i"):
        return term.text or term.head
    if term.head == "number":
        return str(term.value)
    if _names(term):
        return f"{term.text}({','.join(map(_written, term.parts))})"
    raise NotUnderstood("a left side that names nothing")


# Inequalities and intervals


def _solutions(name: str, region: Key) -> Key:
    return Key("solutions", f"{name} in {region.text}", (region,), alternatives=(region,), detail=name)


def _inequality(term: Term, relations: Sequence[str], key_of: KeyOf) -> Key:
    try:
        name, intervals = _solved(term, relations, key_of)
        return _solutions(name, _region(intervals))
    except NotUnderstood:
        pairs = zip(term.parts, relations, term.parts[1:], strict=False)
        return set_key([_comparison(left, relation, right) for left, relation, right in pairs])


def _comparison(left: Term, relation: str, right: Term) -> Key:
    """`f < g`, whatever is on which side."""
    if relation in (">", ">="):
        left, relation, right = right, _FLIPPED[relation], left
    return Key("comparison", f"0 {relation} {_up_to_scale(_apart(left, right), signed=relation != '!=')}")


def _solved(term: Term, relations: Sequence[str], key_of: KeyOf) -> tuple[str, list[_Interval]]:
    """(variable, its values) of inequalities that are linear in one variable."""
    if not set(relations) <= set(_FLIPPED) or len(relations) > 2 or ("!=" in relations and len(relations) > 1):
        raise NotUnderstood("no inequality")
    found: list[_Interval] | None = None
    name = ""
    for left, relation, right in zip(term.parts, relations, term.parts[1:], strict=False):
        one, low_or_high = _linear(left, relation, right)
        if found is not None and one != name:
            raise NotUnderstood("several variables")
        name = one
        found = low_or_high if found is None else [_common(found[0], low_or_high[0])]
    assert found is not None
    return name, found


def _linear(left: Term, relation: str, right: Term) -> tuple[str, list[_Interval]]:
    for side, other, sense in ((left, right, relation), (right, left, _FLIPPED[relation])):
        if side.head in ("name", "apply") and not names_in(other):
            return _name_of(side), _half_line(sense, rational(evaluate(other)))
    difference = Term("+", (left, Term("neg", (right,))))
    names = names_in(difference)
    if len(names) != 1 or has_head(difference, "apply"):
        raise NotUnderstood("several variables")
    (name,) = names
    at = {x: evaluate(difference, {name: Fraction(x)}.__getitem__) for x in (0, 1, 2, -3, Fraction(5, 7))}
    slope = evaluate(Term("+", (_number(at[1]), Term("neg", (_number(at[0]),)))))
    if isinstance(slope, mp.mpc) or slope == 0:
        raise NotUnderstood("no slope")
    for x, value in at.items():
        line = Term("+", (_number(at[0]), Term("*", (_number(slope), _number(Fraction(x))))))
        if spelled(evaluate(line)) != spelled(value):
            raise NotUnderstood("not linear")
    root = rational(evaluate(Term("/", (Term("neg", (_number(at[0]),)), _number(slope)))))
    return name, _half_line(relation if as_float(slope) > 0 else _FLIPPED[relation], root)


def _number(value: Any) -> Term:
    return Term("number", value=value)


def _half_line(relation: str, value: Any) -> list[_Interval]:
    """The numbers that are `relation` a value."""
    if isinstance(value, mp.mpc):
        raise NotUnderstood("complex numbers have no order")
    end = _Bound(
        value, "=" in relation and relation != "!=", Key("number", f"number {digits(value)}", value=value)
    )
    low, high = _Interval(_Bound(None), end), _Interval(end, _Bound(None))
    if relation == "!=":
        return [low, high]
    return [low] if relation.startswith("<") else [high]


def _name_of(term: Term) -> str:
    if term.head not in ("name", "apply"):
        raise NotUnderstood("no variable")
    return _written(term) if all(part.head == "name" for part in term.parts) else term.text


def _common(first: _Interval, second: _Interval) -> _Interval:
    low = max((first.low, second.low), key=lambda end: (end.value is not None, end.place, not end.closed))
    high = min((first.high, second.high), key=lambda end: (end.value is None, end.place, end.closed))
    if low.value is not None and high.value is not None and low.place > high.place:
        raise NotUnderstood("an empty interval")
    return _Interval(low, high)


def _intervals(term: Term, key_of: KeyOf) -> list[_Interval]:
    if term.head == "union":
        return [one for part in term.parts for one in _intervals(part, key_of)]
    if term.head == "reals":
        return [_Interval(_Bound(None), _Bound(None))]
    if term.head == "builder":
        return _of_condition(term, key_of)
    if term.head == "set":
        ends = [_Bound(rational(evaluate(part)), True, key_of(part)) for part in term.parts if not names_in(part)]
        if len(ends) < len(term.parts) or any(isinstance(end.value, mp.mpc) for end in ends):
            raise NotUnderstood("a set that is no set of real numbers")
        return [_Interval(end, end) for end in ends]
    if term.head != "bracket" or len(term.parts) != 2:
        raise NotUnderstood("no interval")
    ends = [_end(part, term.text[side] in "[]", key_of) for side, part in enumerate(term.parts)]
    return [_Interval(*ends)]


def _of_condition(term: Term, key_of: KeyOf) -> list[_Interval]:
    (condition,) = term.parts
    several = condition.parts if condition.head == "list" and condition.text == "or" else (condition,)
    found = []
    for part in several:
        if part.head != "relation":
            raise NotUnderstood("a condition that is no inequality")
        name, intervals = _solved(part, part.text.split(), key_of)
        if name != term.text:
            raise NotUnderstood("a condition on another variable")
        found.extend(intervals)
    return found


def _end(term: Term, closed: bool, key_of: KeyOf) -> _Bound:
    inner = term.parts[0] if term.head == "neg" else term
    if inner.head == "infty":
        return _Bound(None)
    if names_in(term):
        raise NotUnderstood("an end that is no number")
    value = rational(evaluate(term))
    if isinstance(value, mp.mpc):
        raise NotUnderstood("complex numbers have no order")
    return _Bound(value, closed, key_of(term))


def _merged(intervals: Sequence[_Interval]) -> list[_Interval]:
    """The same numbers in intervals that do not touch, in their order."""
    ordered = sorted(intervals, key=lambda one: (one.low.value is not None, one.low.place, not one.low.closed))
    merged: list[_Interval] = []
    for one in ordered:
        if merged and _touch(merged[-1].high, one.low):
            high = max((merged[-1].high, one.high), key=lambda end: (end.value is None, end.place, end.closed))
            merged[-1] = _Interval(merged[-1].low, high)
        else:
            merged.append(one)
    return merged


def _touch(high: _Bound, low: _Bound) -> bool:
    if high.value is None or low.value is None or low.place < high.place:
        return True
    return bool(low.place == high.place and (low.closed or high.closed))


def _region(intervals: Sequence[_Interval]) -> Key:
    keys = []
    for one in intervals:
        if one.low is one.high:
            keys.append(one.low.key)
            continue
        ends = (
            Key("infinity", "-infinity") if one.low.value is None else one.low.key,
            Key("infinity", "infinity") if one.high.value is None else one.high.key,
        )
        keys.append(
            form_key("bracket", ends, detail=("[" if one.low.closed else "(") + (")", "]")[one.high.closed])
        )
    return keys[0] if len(keys) == 1 else form_key("union", keys, ordered=False)
