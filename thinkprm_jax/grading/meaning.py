"""What an answer means: its tree becomes its key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from thinkprm_jax.grading.keys import Key, form_key, set_key, text_key
from thinkprm_jax.grading.labels import PHRASES, counted
from thinkprm_jax.grading.normalise import normalise
from thinkprm_jax.grading.points import points_of, values_of
from thinkprm_jax.grading.solutions import joined_key, names_apart, region_key, relation_key
from thinkprm_jax.grading.syntax import parse_answer
from thinkprm_jax.grading.terms import NotUnderstood, Term, has_head, names_in, walk
from thinkprm_jax.grading.values import Value, digits, evaluate, rational, spelled, tidied

_PLAIN = re.compile(
    r"\s*\$?(-?(?:\d{1,30}|\d{1,3}(?:,\d{3}){1,9})(?:\.\d{1,30})?)\$?\s*"
)  # most answers: a number


_NOTHING = Key("set", "set[]")
_INFINITY = Key("infinity", "infinity")
_MINUS_INFINITY = Key("infinity", "-infinity")


def key_of(answer: str) -> Key | None:
    """The key of a bare answer; None where there is none. One that is not understood has its text for a key."""
    spelling = spelling_of(answer)
    return key_of_spelling(spelling) if spelling else None


def spelling_of(answer: str) -> str:
    """An answer in a spelling that decides its key: a plain number as it is, else the normalised text; "" where
    there is no answer."""
    return answer if _PLAIN.fullmatch(answer) else normalise(answer)


def key_of_spelling(spelling: str) -> Key:
    """The key of what `spelling_of` gives, which is not ""."""
    plain = _PLAIN.fullmatch(spelling)
    if plain:
        number = Fraction(plain[1].replace(",", ""))
        return number_key(number, len(plain[1].partition(".")[2]))
    try:
        return understood_key(spelling)
    except (NotUnderstood, RecursionError):
        return text_key(spelling)


def understood_key(normal: str) -> Key:
    """The key of a normalised answer. Raises NotUnderstood."""
    phrase = PHRASES.get(normal.casefold())
    return _PHRASES[phrase]() if phrase is not None else _key(parse_answer(normal))


def _key(term: Term) -> Key:
    if term.head == "neg" and term.parts[0].head == "infty":
        return _MINUS_INFINITY
    form = _FORMS.get(term.head)
    return form(term) if form is not None else _scalar(term)


# Numbers and expressions


def _scalar(term: Term) -> Key:
    if has_head(term, "pm", "mp"):
        both = [_signed(term, sign) for sign in (1, -1)]
        return both[0] if both[0].text == both[1].text else form_key("set", both, ordered=False)
    return _signed(term, 1)


def _signed(term: Term, sign: int) -> Key:
    if not names_in(term):
        value = rational(evaluate(term, sign=sign))
        return number_key(value, _places(term), _other_readings(term))
    return expression_key(values_of(term, points_of(term), sign))


def number_key(value: Value, places: int = 0, alternatives: tuple[Key, ...] = ()) -> Key:
    return Key("number", f"number {digits(value)}", value=value, places=places, alternatives=alternatives)


def expression_key(values: Sequence[Value]) -> Key:
    """The key of a function of some names by its values at points; of a constant one, that of its value."""
    texts = [spelled(value) for value in values]
    if len(set(texts)) == 1 and values[0] is not None:
        return number_key(rational(values[0]))
    return Key("expression", f"expression {_digest(texts)}", values=values)


def _other_readings(term: Term) -> tuple[Key, ...]:
    """`12\\%` may be given as `12`, and `90^\\circ` as `90`."""
    while term.head == "neg" and term.parts[0].head == "neg":
        term = term.parts[0].parts[0]
    inner = term.parts[0] if term.head == "neg" else term
    if inner.head not in ("percent", "degree"):
        return ()
    bare = inner.parts[0]
    return (_signed(Term("neg", (bare,)) if term.head == "neg" else bare, 1),)


def _places(term: Term) -> int:
    return max(one.places for one in walk(term))


def _digest(texts: Sequence[str]) -> str:
    joined = " ".join(texts)
    return joined if len(joined) <= 60 else hashlib.sha256(joined.encode()).hexdigest()[:32]


def key_of_values(values: Sequence[Sequence[str]]) -> Key | None:
    """The key of a formula that was read elsewhere: its [real, imaginary] values at the `POINTS`, as fractions or
    decimals. None where they are no numbers."""
    try:
        read = [tidied(*pair) for pair in values]
    except (ValueError, NotUnderstood):
        return None
    return number_key(read[0]) if len(read) == 1 else expression_key(read)


# Quantities


def _quantity(term: Term) -> Key:
    (value,) = term.parts
    bare = _key(value)
    if term.text in ("am", "pm"):
        hour = _clock(bare, number_key(Fraction(0)), term.text)
        return replace(hour, alternatives=(*hour.alternatives, bare))
    if term.unit is None:
        label = counted(term.text)
        return Key(
            "quantity", f"{label} {bare.text}", (bare,), alternatives=(bare, *bare.alternatives), detail=label
        )
    measured = _measured([term])
    return replace(measured, alternatives=(bare, *bare.alternatives))


def _measured(pieces: Sequence[Term]) -> Key:
    """One value in base units, with its dimension."""
    total: Term | None = None
    for piece in pieces:
        assert piece.unit is not None
        part = Term("*", (Term("number", value=piece.unit.size), piece.parts[0]))
        total = part if total is None else Term("+", (total, part))
    assert total is not None
    assert pieces[0].unit is not None
    amount = _scalar(total)
    dimension = " ".join(f"{name}{power}" for name, power in pieces[0].unit.dimension)
    return Key("quantity", f"{dimension} {amount.text}", (amount,), detail=dimension)


def _mixed(term: Term) -> Key:
    return _measured(term.parts)


def _ratio(term: Term) -> Key:
    """`2:3` is `4:6`, and may be given as the fraction; what looks like a time of day may be one."""
    parts = [_key(part) for part in term.parts]
    clock = _clock(parts[0], parts[1], term.text.partition(" ")[2]) if term.text and len(parts) == 2 else None
    if clock is not None and clock.alternatives:
        return clock
    values = [part.value for part in parts]
    if not all(isinstance(value, Fraction) and value > 0 for value in values):
        return clock or form_key("ratio", parts, detail=f" {term.text}" if term.text else "")
    meant = form_key("ratio", [number_key(value / values[0]) for value in values])
    if term.text:
        return replace(clock or form_key("ratio", parts, detail=f" {term.text}"), alternatives=(meant,))
    return replace(meant, alternatives=(number_key(values[0] / values[1]),) if len(values) == 2 else ())


def _clock(hour: Key, minute: Key, half: str) -> Key:
    """A time of day. half: `am` or `pm`, which may be left out; "" where it is."""
    bare = form_key("ratio", (hour, minute), detail=" clock")
    if not half:
        return bare
    return replace(form_key("ratio", (hour, minute), detail=f" clock {half}"), alternatives=(bare,))


def _congruence(term: Term) -> Key:
    left, right, modulus = term.parts
    size = rational(evaluate(modulus))
    if not isinstance(size, Fraction) or size == 0:
        raise NotUnderstood("a modulus that is no number")
    size = abs(size)
    kept, residue = (left, right) if names_in(left) else (Term("number"), Term("+", (left, Term("neg", (right,)))))
    if names_in(residue) or (kept is left and left.head != "name"):
        raise NotUnderstood("a congruence that is not solved")
    value = evaluate(Term("bmod", (residue, Term("number", value=size))))
    name = left.text if kept is left else ""
    return Key("congruence", f"{name} {digits(value)} mod {digits(size)}")


# Lists, sets, brackets, matrices


def _list(term: Term) -> Key:
    if any(part.head == "dots" for part in term.parts):
        return form_key(
            "sequence", [Key("dots", "...") if part.head == "dots" else _key(part) for part in term.parts]
        )
    if term.text == "or" and all(part.head == "relation" for part in term.parts):
        joined = joined_key(term, _key)
        if joined is not None:
            return joined
    if names_apart(term.parts):
        return _assignment(term.parts)
    parts = _spread([_key(_with_left_side(part, term.parts[0])) for part in term.parts])
    in_order = form_key("bracket", parts, detail="()")
    return replace(form_key("set", parts, ordered=False), alternatives=_values_only(parts), in_order=(in_order,))


def _assignment(equations: Sequence[Term]) -> Key:
    """`a = 3, b = 4`, in any order; it may be given as `(3, 4)`."""
    parts = [_key(part) for part in equations]
    values = [part.alternatives[0] if part.alternatives else part for part in parts]
    pair = form_key("bracket", values, detail="()")
    return replace(form_key("assignment", parts, ordered=False), alternatives=(pair,))


def _with_left_side(part: Term, first: Term) -> Term:
    """Of `x = 1, 2` the 2 is an x too."""
    if first.head == "relation" and first.text == "=" and part.head not in ("relation", "dots"):
        return Term("relation", (first.parts[0], part), text="=")
    return part


def _values_only(parts: Sequence[Key]) -> tuple[Key, ...]:
    """The list of the right sides, where all parts are `name = value`."""
    if not all(part.kind == "equation" and part.alternatives for part in parts):
        return ()
    values = [part.alternatives[0] for part in parts]
    return (set_key(values), form_key("bracket", values, detail="()"))


def _spread(parts: Sequence[Key]) -> list[Key]:
    """`\\pm 1, \\pm 2` is a list of four."""
    return [inner for part in parts for inner in (part.parts if part.kind == "set" else (part,))]


def _set(term: Term) -> Key:
    return set_key(_spread([_key(part) for part in term.parts]))


def _bracket(term: Term) -> Key:
    if any(part.head == "dots" for part in term.parts):
        raise NotUnderstood("dots in brackets")
    if term.text == "()" and names_apart(term.parts):
        return _assignment(term.parts)
    if term.text in ("()",) or len(term.parts) != 2:
        if term.text not in ("()", "[]"):
            raise NotUnderstood("brackets that do not match")
        return form_key("bracket", [_end(part) for part in term.parts], detail=term.text)
    return form_key("bracket", [_end(part) for part in term.parts], detail=term.text)


def _end(term: Term) -> Key:
    """A part of a bracket, which may be infinite."""
    inner = term.parts[0] if term.head in ("neg", "+") and len(term.parts) == 1 else term
    if inner.head == "infty":
        return Key("infinity", "-infinity" if term.head == "neg" else "infinity")
    return _key(term)


def _matrix(term: Term) -> Key:
    if len({len(row.parts) for row in term.parts}) != 1:
        raise NotUnderstood("rows of different lengths")
    rows = [form_key("row", [_key(cell) for cell in row.parts]) for row in term.parts]
    matrix = form_key("matrix", rows, detail=f" {term.text}")
    if term.text == "vmatrix" or 1 not in (len(rows), len(rows[0].parts)):
        return matrix
    # A vector, which may be given as a point.
    cells = [cell for row in rows for cell in row.parts]
    return replace(matrix, alternatives=(form_key("bracket", cells, detail="()"),))


_FORMS: dict[str, Callable[[Term], Key]] = {
    "quantity": _quantity,
    "mixed": _mixed,
    "ratio": _ratio,
    "congruence": _congruence,
    "list": _list,
    "set": _set,
    "bracket": _bracket,
    "matrix": _matrix,
    "relation": lambda term: relation_key(term, _key),
    "union": lambda term: region_key(term, _key),
    "builder": lambda term: region_key(term, _key),
    "reals": lambda term: region_key(term, _key),
    "emptyset": lambda term: _NOTHING,
    "infty": lambda term: _INFINITY,
}
_PHRASES: dict[str, Callable[[], Key]] = {
    "reals": lambda: _key(Term("reals")),
    "nothing": lambda: _NOTHING,
    "infinity": lambda: _INFINITY,
    "-infinity": lambda: _MINUS_INFINITY,
    "does not exist": lambda: text_key("does not exist"),
}
