"""What an answer means: its tree becomes its key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from thinkprm_jax.grading.keys import Key, form_key, set_key, text_key
from thinkprm_jax.grading.normalise import normalise
from thinkprm_jax.grading.solutions import joined_key, region_key, relation_key
from thinkprm_jax.grading.syntax import parse_answer
from thinkprm_jax.grading.terms import NotUnderstood, Term
from thinkprm_jax.grading.values import digits, evaluate, has_head, names_in, tidied, values_of

_PLAIN = re.compile(
    r"\s*\$?(-?(?:\d{1,30}|\d{1,3}(?:,\d{3}){1,9})(?:\.\d{1,30})?)\$?\s*"
)  # most answers: a number


def key_of(answer: str) -> Key | None:
    """The key of a bare answer; None where there is none. One that is not understood has its text for a key."""
    plain = _PLAIN.fullmatch(answer)
    if plain:
        number = Fraction(plain[1].replace(",", ""))
        return Key("number", f"number {number}", value=number, places=len(plain[1].partition(".")[2]))
    normal = normalise(answer)
    if not normal:
        return None
    try:
        return understood_key(normal)
    except (NotUnderstood, RecursionError):
        return text_key(normal)


def understood_key(normal: str) -> Key:
    """The key of a normalised answer. Raises NotUnderstood."""
    return _key(parse_answer(normal))


def _key(term: Term) -> Key:
    form = _FORMS.get(term.head)
    return form(term) if form is not None else _scalar(term)


# Numbers and expressions


def _scalar(term: Term) -> Key:
    if has_head(term, "pm", "mp"):
        both = [_signed(term, sign) for sign in (1, -1)]
        return both[0] if both[0].text == both[1].text else form_key("set", both, ordered=False)
    return _signed(term, 1)


def _signed(term: Term, sign: int) -> Key:
    names = names_in(term)
    values = values_of(term, sign) if names else [evaluate(term, sign=sign)]
    texts = ["" if value is None else digits(value) for value in values]
    if len(set(texts)) == 1:
        number = Key("number", f"number {texts[0]}", value=values[0], places=_places(term))
        return replace(number, alternatives=_other_readings(term))
    return Key("expression", f"expression {_digest(texts)}")


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
    return max([term.places, *map(_places, term.parts)])


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
    texts = [digits(value) for value in read]
    if len(set(texts)) == 1:
        return Key("number", f"number {texts[0]}", value=read[0])
    return Key("expression", f"expression {_digest(texts)}")


# Quantities


def _quantity(term: Term) -> Key:
    (value,) = term.parts
    bare = _key(value)
    if term.unit is None:
        label = term.text.removesuffix("s")
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
    parts = [_key(part) for part in term.parts]
    if not term.text and all(isinstance(part.value, Fraction) and part.value > 0 for part in parts):
        first = parts[0].value
        parts = [_scalar(Term("number", value=part.value / first)) for part in parts]
    return form_key("ratio", parts, detail=f" {term.text}" if term.text else "")


def _congruence(term: Term) -> Key:
    left, right, modulus = term.parts
    size = evaluate(modulus)
    if names_in(modulus) or not isinstance(size, Fraction) or size == 0:
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
    parts = _spread([_key(_with_left_side(part, term.parts[0])) for part in term.parts])
    in_order = form_key("bracket", parts, detail="()")
    return replace(form_key("set", parts, ordered=False), alternatives=(*_values_only(parts), in_order))


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
    return form_key("matrix", rows, detail=f" {term.text}")


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
    "emptyset": lambda term: Key("set", "set[]"),
    "infty": lambda term: Key("infinity", "infinity"),
}
