"""The grammar of answers: a normalised text becomes a tree, or is not understood.

Nothing is skipped. A text of which one token has no place in the grammar raises `NotUnderstood`, and is compared
as text: half an answer is never taken for the whole.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from thinkprm_jax.grading.factors import FactorReader
from thinkprm_jax.grading.terms import NotUnderstood, Term
from thinkprm_jax.grading.tokens import tokenize
from thinkprm_jax.grading.units import Unit, is_unit, read_unit

_RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "approx": "~", "in": "in",
              "equiv": "mod", "simeq": "~", "doteq": "~"}  # fmt: skip
_MULTIPLIERS = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
                "dozen": 12}  # fmt: skip
_NEUTRAL = {"unit", "units", "rad", "radians", "radian"}
_PRODUCTS = {"cdot": "*", "*": "*", "/": "/", "div": "/", "bmod": "bmod"}
_DEEPEST = 60
_NO_LABEL = {"and", "or", "to", "by", "not", "than", "over", "base", "am", "pm", "plus", "minus", "times",
    "mod", "of",
             "if", "when", "where", "for", "per", "squared", "cubed", "percent",
             "pct"} | set(_MULTIPLIERS)  # fmt: skip


def parse_answer(normal: str) -> Term:
    """The tree of a normalised answer. Raises NotUnderstood."""
    reader = _AnswerReader(tokenize(normal))
    term = reader.listing()
    if not reader.at_end():
        raise NotUnderstood(normal)
    return term


class _AnswerReader(FactorReader):
    """The upper half: lists, relations, quantities, sums and products."""

    def listing(self) -> Term:
        """Items between commas or semicolons; where there are both, semicolons part groups: `a=5,b=2; a=7,b=3`."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise NotUnderstood("too deep")
        groups: list[list[Term]] = [[self.item()]]
        spoken = set()
        while True:
            comma, semicolon = self.accept(","), self.accept(";")
            word = self.peek()
            joined = word is not None and word.kind == "word" and word.text.lower() in ("and", "or")
            if joined:
                spoken.add(self.take().text.lower())
            if not (comma or semicolon or joined):
                break
            if not joined:
                spoken.add(",")
            if semicolon:
                groups.append([])
            groups[-1].append(self.item())
        self.depth -= 1
        if len(groups) == 1 and self.are_one_measure(groups[0]):
            return Term("mixed", tuple(groups[0]))
        if any(len(group) > 1 for group in groups) and len(groups) > 1:
            parts = [Term("bracket", tuple(one), text="()") if len(one) > 1 else one[0] for one in groups]
            return Term("list", tuple(parts), text=",")
        items = [one for group in groups for one in group]
        return items[0] if len(items) == 1 else Term("list", tuple(items), text="or" if spoken == {"or"} else ",")

    def are_one_measure(self, items: list[Term]) -> bool:
        """Whether a list is one quantity all the same: `1 hour and 20 minutes`."""
        if len(items) < 2:
            return False
        for larger, smaller in pairwise(items):
            if larger.unit is None or smaller.unit is None or larger.unit.dimension != smaller.unit.dimension:
                return False
            value = smaller.parts[0]
            if value.head != "number" or value.value * smaller.unit.size >= larger.unit.size:
                return False
        return True

    def item(self) -> Term:
        if self.command_is("dots", "ldots", "cdots") or self.next_is("..."):
            self.take()
            return Term("dots")
        if self.next_is("~") or self.command_is("approx"):
            self.take()
            return self.side()
        parts = [self.side()]
        relations = []
        while (relation := self.relation()) is not None:
            relations.append(relation)
            parts.append(self.side())
        if not relations:
            return self.reduced(parts[0]) if self.has_modulus() else parts[0]
        if "mod" in relations:
            return self.congruence(parts, relations)
        return Term("relation", tuple(parts), text=" ".join(relations))

    def relation(self) -> str | None:
        token = self.peek()
        if token is None or token.kind not in ("mark", "command") or token.text not in _RELATIONS:
            return None
        if token.kind == "mark" and token.text == "=" and self.next_is("=", ahead=1):
            return None
        self.position += 1
        return _RELATIONS[token.text]

    def reduced(self, value: Term) -> Term:
        return Term("congruence", (value, Term("number"), self.modulus()))

    def congruence(self, parts: list[Term], relations: list[str]) -> Term:
        if relations == ["mod"] and parts[1].head == "bmod":
            return Term("congruence", (parts[0], *parts[1].parts))
        if relations != ["mod"] or not self.has_modulus():
            raise NotUnderstood("a congruence without its modulus")
        return Term("congruence", (*parts, self.modulus()))

    def side(self) -> Term:
        """One side of a relation: sets joined by `cup`, or a ratio."""
        first = self.quantity()
        if self.command_is("cup"):
            parts = [first]
            while self.accept("cup", "command"):
                parts.append(self.quantity())
            return Term("union", tuple(parts))
        if self.next_is("out", kind="word") and self.next_is("of", kind="word", ahead=1):
            self.position += 2
            return Term("/", (first, self.quantity()))
        if self.next_is("to", kind="word"):
            parts = [first]
            while self.accept("to", "word"):
                parts.append(self.quantity())
            return Term("ratio", tuple(parts))
        if self.next_is(":"):
            tokens = [self.peek(-1)]
            parts = [first]
            while self.accept(":"):
                parts.append(self.quantity(in_ratio=True))
                tokens.append(self.peek(-1))
            clock = all(token is not None and token.kind == "number" for token in tokens) and all(
                token is not None and len(token.text) == 2 for token in tokens[1:]
            )
            return Term("ratio", tuple(parts), text=f"clock {self.half_of_day()}" if clock else "")
        return first

    def quantity(self, in_ratio: bool = False) -> Term:
        """A sum, with its unit or label; or several, as `5 feet 6 inches`. in_ratio: `pm` is of the ratio."""
        pieces: list[Term] = []
        while True:
            value = self.sum()
            unit = self.unit()
            if unit is None:
                label = ("" if in_ratio else self.half_of_day()) or self.label()
                if pieces:
                    raise NotUnderstood("a quantity whose last part has no unit")
                if not label or label in _NEUTRAL:
                    return value
                return Term("quantity", (value,), text=label)
            pieces.append(Term("quantity", (value,), unit=unit))
            token = self.peek()
            if token is None or token.kind != "number":
                break
        if len(pieces) == 1:
            return pieces[0]
        if len({piece.unit.dimension for piece in pieces if piece.unit}) > 1:
            raise NotUnderstood("a sum of units of different kinds")
        return Term("mixed", tuple(pieces))

    def unit(self) -> Unit | None:
        """The unit at this place, up to whatever is no unit."""
        token = self.peek()
        if token is None or not self.after_number():
            return None
        if token.kind == "unit":
            self.take()
            return read_unit(token.text.removeprefix(r"\text{").replace("}", "", 1), short=True)
        if token.kind != "word" or not is_unit(token.text):
            return None
        best, end = None, self.position
        text = ""
        for place in range(self.position, min(self.position + 12, len(self.tokens))):
            one = self.tokens[place]
            text += ("" if one.kind == "mark" else " ") + (rf"\{one.text}" if one.kind == "command" else one.text)
            unit = read_unit(text.replace("^ ", "^").replace("{ ", "{"))
            if unit is not None:
                best, end = unit, place + 1
        if best is not None:
            self.position = end
        return best

    def half_of_day(self) -> str:
        """`am` or `pm` behind a number; "" where there is neither."""
        if self.next_is("am", "pm", "AM", "PM", kind="word") and self.after_number():
            return self.take().text.lower()
        return ""

    def label(self) -> str:
        """The words up to the end of the item, where they only say what was counted: `students present`."""
        words: list[str] = []
        place = self.position
        if place < len(self.tokens) and self.tokens[place].glued and self.tokens[place - 1].kind == "number":
            return ""  # `0xFF`
        while place < len(self.tokens) and self.tokens[place].kind == "word":
            words.append(self.tokens[place].text.lower())
            place += 1
        after = self.tokens[place] if place < len(self.tokens) else None
        if not words or set(words) & _NO_LABEL or (after is not None and after.text not in (",", ";")):
            return ""
        if not self.after_number():
            return ""
        self.position = place
        return " ".join(words)

    def sum(self) -> Term:
        signs = {"+": "+", "-": "neg"}
        total: Term | None = None
        while True:
            token = self.peek()
            sign = ""
            if token is not None and token.kind == "mark" and token.text in signs:
                sign = signs[self.take().text]
            elif token is not None and token.kind == "command" and token.text in ("pm", "mp"):
                sign = self.take().text
            elif total is not None:
                return total
            part = self.product()
            if sign in ("neg", "pm", "mp"):
                part = Term(sign, (part,))
            total = part if total is None else Term("+", (total, part))

    def product(self) -> Term:
        value = self.power()
        while (token := self.peek()) is not None:
            operation = _PRODUCTS.get(token.text) if token.kind in ("mark", "command") else None
            if operation is not None:
                self.take()
                value = Term(operation, (value, self.power() if operation == "bmod" else self.signed_power()))
            elif self.multiplier_follows():
                value = Term("*", (value, Term("number", value=Fraction(_MULTIPLIERS[self.take().text]))))
            elif self.starts_factor():
                value = self.beside(value, self.power())
            else:
                break
        return value

    def beside(self, first: Term, second: Term) -> Term:
        """A product without a sign. A zero in one would swallow what stands beside it, as in `0x1F`."""
        if any(part.head == "number" and part.value == 0 for part in (first, second)) and second.head != "i":
            raise NotUnderstood("a zero beside something")
        return Term("*", (first, second))

    def multiplier_follows(self) -> bool:
        token = self.peek()
        return token is not None and token.kind == "word" and token.text in _MULTIPLIERS and self.after_number()

    def signed_power(self) -> Term:
        if self.accept("-"):
            return Term("neg", (self.signed_power(),))
        return self.power()
