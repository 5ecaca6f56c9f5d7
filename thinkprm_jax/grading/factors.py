"""The lower half of the grammar of answers: numbers, names, functions, roots, brackets, sets and matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction

from thinkprm_jax.grading.terms import NotUnderstood, Term, read_based, read_number, read_repeating
from thinkprm_jax.grading.tokens import FUNCTIONS, GREEK, Token, TokenCursor, is_name, is_product
from thinkprm_jax.grading.units import is_unit

_CLOSING = {"(": ")", "[": "]", "]": "["}
_ACCENTS = {"vec", "overrightarrow", "overline", "bar", "hat", "tilde", "widehat", "overleftrightarrow", "dot",
    "ddot",
            "mathbb", "mathcal", "boldsymbol", "bm", "mathscr", "mathfrak", "textcircled"}  # fmt: skip
_BEHIND = {"^", "!", "%", "percent", "pct", "degree", "degrees"}  # what may follow a factor and belongs to it
_CONSTANTS = {"pi", "infty", "emptyset"}


class FactorReader(TokenCursor, ABC):
    """Recursive descent over the tokens. Each method reads one rule of the grammar from `position` on."""

    @abstractmethod
    def listing(self) -> Term:
        """Items between commas."""

    @abstractmethod
    def sum(self) -> Term:
        """Products with signs between them."""

    def has_modulus(self) -> bool:
        return self.command_is("pmod", "pod") or (
            self.next_is("(") and (self.command_is("bmod", "mod", ahead=1) or self.next_is("mod", kind="word",
            ahead=1))
        ) or self.command_is("mod")  # fmt: skip

    def modulus(self) -> Term:
        if self.accept("("):
            self.take()
            modulus = self.sum()
            self.expect(")")
            return modulus
        return self.group() if self.take().text == "pmod" and self.next_is("{") else self.power()

    def after_number(self) -> bool:
        """Whether a value has just ended, behind which a word may be its unit."""
        token = self.peek(-1) if self.position else None
        return token is not None and (token.kind in ("number", "repeating") or token.text in ("}", ")", "pi", "!"))

    def starts_factor(self) -> bool:
        """Whether the next token can begin a factor that multiplies what stands before it."""
        token = self.peek()
        if token is None:
            return False
        if token.kind in ("number", "based", "repeating"):
            before = self.peek(-1)
            if before is not None and before.kind in ("number", "based", "repeating"):
                raise NotUnderstood("two numbers side by side")
            if before is not None and before.kind == "letter":
                raise NotUnderstood("a number behind a name, which may be its index")
            return True
        if token.kind == "letter":
            return True
        if token.kind == "word":
            if self.after_number() and is_unit(token.text):
                return False
            return token.text in FUNCTIONS or is_product(token.text, self.in_formula) or is_name(token.text)
        if token.kind == "mark":
            if token.text == "(" and self.has_modulus():
                return False
            return token.text in ("(", "{") or (token.text == "|" and not self.bars)
        if token.kind == "command":
            return (
                token.text in FUNCTIONS or token.text in GREEK or token.text in _ACCENTS
                or token.text in ("frac", "sqrt", "pi", "binom", "lfloor", "lceil")
            )  # fmt: skip
        return False

    def power(self) -> Term:
        base = self.primary()
        while True:
            token = self.peek()
            if token is None or token.text not in _BEHIND:
                return base
            if self.next_is("^") and (self.command_is("circ", ahead=1)):
                self.position += 2
                base = Term("degree", (base,))
            elif self.accept("^"):
                return self.postfix(Term("^", (base, self.exponent())))
            elif (after := self.postfix(base)) is not base:
                base = after
            else:
                return base

    def postfix(self, base: Term) -> Term:
        if self.accept("!"):
            return Term("factorial", (base,))
        if self.accept("%", "command") or self.accept("percent", "word") or self.accept("pct", "word"):
            return Term("percent", (base,))
        if self.after_number() and (self.accept("degrees", "word") or self.accept("degree", "word")):
            return Term("degree", (base,))
        return base

    def exponent(self) -> Term:
        if self.next_is("{"):
            return self.group()
        if self.accept("-"):
            return Term("neg", (self.exponent(),))
        base = self.primary()
        return Term("^", (base, self.exponent())) if self.accept("^") else base

    def group(self) -> Term:
        """`{...}`: braces that only hold together."""
        self.expect("{")
        value = self.sum()
        if self.accept("choose", "command"):
            value = Term("binom", (value, self.sum()))
        self.expect("}")
        return value

    def primary(self) -> Term:
        token = self.take()
        if token.kind == "number":
            return self.mixed_number(read_number(token.text))
        if token.kind == "repeating":
            return Term("number", value=read_repeating(token.text))
        if token.kind == "based":
            return Term("number", value=read_based(token.text))
        if token.kind == "mark":
            return self.bracketed(token.text)
        if token.kind == "command":
            return self.command(token.text)
        if token.kind == "word":
            return self.word(token.text)
        if token.kind == "letter":
            return self.named(token.text)
        raise NotUnderstood(token.text)

    def mixed_number(self, whole: Term) -> Term:
        """`1\\frac{1}{2}` is one and a half."""
        if whole.places or not self.command_is("frac"):
            return whole
        plain = [("mark", "{"), ("number", ""), ("mark", "}")] * 2
        following = [self.peek(1 + place) for place in range(6)]
        if not all(
            token is not None and token.kind == kind and (token.text == text or (not text and
            token.text.isdigit())) for token, (kind, text) in zip(following, plain, strict=True)
        ):  # fmt: skip
            return whole
        fraction = self.primary()
        top, bottom = fraction.parts[0].value, fraction.parts[1].value
        if bottom == 0:
            raise NotUnderstood("division by zero")
        return whole._replace(value=whole.value + top / bottom)

    def bracketed(self, opening: str) -> Term:
        if opening == "{":
            self.position -= 1
            return self.group()
        if opening == "|":
            self.bars += 1
            value = self.sum()
            self.expect("|")
            self.bars -= 1
            return Term("abs", (value,))
        if opening not in _CLOSING:
            raise NotUnderstood(opening)
        if opening == "[" and (rows := self.rows()) is not None:
            return rows
        bars, self.bars = self.bars, 0
        inner = self.listing()
        self.bars = bars
        closing = self.take()
        if closing.kind != "mark" or closing.text not in (")", "]", "["):
            raise NotUnderstood("a bracket that is not closed")
        if inner.head == "list" and inner.text == ",":
            # A bracket that is turned outward, as in `]0,1[`, leaves its end out.
            low, high = opening.replace("]", "("), closing.text.replace("[", ")")
            return Term("bracket", inner.parts, text=low + high)
        if closing.text != _CLOSING[opening]:
            raise NotUnderstood("brackets that do not match")
        return inner

    def rows(self) -> Term | None:
        """A matrix as programs write it, behind its first bracket: `[[1, 2], [3, 4]]`; None where it is none."""
        start = self.position
        rows: list[Term] = []
        while self.accept("["):
            inner = self.listing()
            rows.append(Term("row", inner.parts if inner.head == "list" else (inner,)))
            if not self.accept("]") or not self.accept(","):
                break
        if rows and self.accept("]"):
            return Term("matrix", tuple(rows), text="pmatrix")
        self.position = start
        return None

    def word(self, word: str) -> Term:
        if word in FUNCTIONS:
            return self.function(FUNCTIONS[word])
        if is_name(word):
            return self.named(word)
        if not is_product(word, self.in_formula):
            raise NotUnderstood(word)
        # The last letter may have an exponent or an index of its own.
        letters = [Token("letter", letter) for letter in word]
        self.tokens[self.position - 1 : self.position] = letters
        return self.named(word[0])

    def command(self, name: str) -> Term:
        if name == "frac":
            return self.fraction()
        if name == "binom":
            return Term("binom", (self.group(), self.group()))
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name])
        if name in _CONSTANTS:
            return Term(name)
        if name in GREEK:
            return self.named(f"\\{name}")
        if name == "{":
            return self.set()
        if name == "langle":
            inner = self.listing()
            self.expect("rangle", "command")
            if inner.head != "list":
                raise NotUnderstood("a vector of one number")
            return Term("bracket", inner.parts, text="()")
        if name in ("lfloor", "lceil"):
            value = self.sum()
            self.expect({"lfloor": "rfloor", "lceil": "rceil"}[name], "command")
            return Term("floor" if name == "lfloor" else "ceil", (value,))
        if name == "begin":
            return self.matrix()
        if name in _ACCENTS:
            return self.accented(name)
        raise NotUnderstood(name)

    def fraction(self) -> Term:
        above = self.peek(1)
        derivative = above is not None and above.kind in ("letter", "word") and above.text[0] == "d"
        top = self.group()
        start = self.position
        bottom = self.group()
        below = self.tokens[start + 1]
        if derivative and below.text.startswith("d") and len(self.tokens[start : self.position]) > 3:
            raise NotUnderstood("a derivative")
        return Term("/", (top, bottom))

    def accented(self, accent: str) -> Term:
        """`\\vec{a}`, `\\overline{AB}`, `\\mathbb{R}`: a name with its accent."""
        content = self.take()
        if content.text == "{":
            content = self.take()
            self.expect("}")
        if content.kind not in ("letter", "word", "number") or (
            content.kind == "number" and accent != "textcircled"
        ):
            raise NotUnderstood(accent)
        if accent == "mathbb" and content.text == "R":
            return Term("reals")
        return self.named(rf"\{accent}{{{content.text}}}")

    def named(self, name: str) -> Term:
        """A name with its index, primes and, for the usual names of functions, its arguments."""
        if self.accept("_"):
            if name == "C" and (chosen := self.combination()) is not None:
                return chosen
            name += f"_{self.raw()}"
        while self.next_is("'") or (self.next_is("^") and self.prime_follows()):
            if not self.accept("'"):
                self.position += 2 if self.command_is("prime", ahead=1) else 4
            name += "'"
        inverse = ["^", "{", "-", "1", "}", "("]
        if (
            name[0] in "fghFG"
            and [token.text for token in self.tokens[self.position : self.position + 6]] == inverse
        ):
            self.position += 5
            name += "^-1"
        applied = name[0] in "fghFGP" or "'" in name
        if applied and self.next_is("(") and not self.has_modulus():
            self.take()
            inner = self.listing()
            self.expect(")")
            return Term("apply", inner.parts if inner.head == "list" else (inner,), text=name)
        if name in ("e", "i"):
            return Term(name)
        return Term("name", text=name)

    def prime_follows(self) -> bool:
        return self.command_is("prime", ahead=1) or (
            self.next_is("{", ahead=1) and self.command_is("prime", ahead=2) and self.next_is("}", ahead=3)
        )  # fmt: skip

    def raw(self) -> str:
        """An index, as it is written."""
        token = self.take()
        if token.text != "{":
            return token.text
        texts = []
        while not self.next_is("}"):
            token = self.take()
            if token.text == "{":
                raise NotUnderstood("an index of an index")
            texts.append(token.text)
        self.expect("}")
        return " ".join(texts) if len(texts) != 1 else texts[0]

    def combination(self) -> Term | None:
        """The n and k of `C_n^k`, behind its underscore; None where it is an index."""
        start = self.position
        lower = self.group() if self.next_is("{") else self.primary()
        if self.accept("^"):
            upper = self.group() if self.next_is("{") else self.primary()
            return Term("binom", (lower, upper))
        self.position = start
        return None

    def function(self, name: str) -> Term:
        """A function with its base, power and argument."""
        if name == "sqrt":
            return self.root()
        base = None
        if self.accept("_"):
            if name != "log":
                raise NotUnderstood(f"{name} with an index")
            base = self.group() if self.next_is("{") else self.primary()
        power = self.exponent() if self.accept("^") else None
        if name in ("gcd", "lcm", "max", "min"):
            inner = self.primary()
            if inner.head != "bracket" or inner.text != "()":
                raise NotUnderstood(name)
            return Term(name, inner.parts)
        argument = self.argument()
        if base is not None:
            value = Term("/", (Term("ln", (argument,)), Term("ln", (base,))))
        elif power is not None and power.head == "neg" and power.parts[0].value == 1:
            value, power = Term(f"arc{name}", (argument,)), None
        else:
            value = Term(name, (argument,))
        return value if power is None else Term("^", (value, power))

    def argument(self) -> Term:
        """What a function is of: what stands in brackets, else the factors up to the next function."""
        if self.next_is("("):
            inner = self.primary()
            if inner.head == "bracket":
                raise NotUnderstood("a function of several values")
            return inner
        value = self.power()
        while self.starts_factor():
            token = self.peek()
            if token is None or (token.text in FUNCTIONS and token.text != "sqrt") or token.text in ("(", "|"):
                break
            value = Term("*", (value, self.power()))
        return value

    def root(self) -> Term:
        degree = Term("number", value=Fraction(2))
        if self.accept("["):
            degree = self.sum()
            self.expect("]")
        inner = self.group() if self.next_is("{") else self.primary()
        if inner.head == "bracket":
            raise NotUnderstood("a root of several values")
        return Term("root", (inner, degree))

    def set(self) -> Term:
        """`\\{1, 2\\}` and `\\{x | x > 2\\}`."""
        variable = self.peek()
        if variable is not None and variable.kind == "letter" and (
            self.next_is("|", ahead=1) or self.next_is(":", ahead=1)
        ):  # fmt: skip
            self.position += 2
            condition = self.listing()
            self.expect("}", "command")
            return Term("builder", (condition,), text=variable.text)
        inner = self.listing()
        self.expect("}", "command")
        return Term("set", inner.parts if inner.head == "list" else (inner,))

    def matrix(self) -> Term:
        name = self.environment()
        if name not in ("pmatrix", "vmatrix"):
            raise NotUnderstood(name)
        rows: list[Term] = []
        cells: list[Term] = []
        while True:
            cells.append(self.sum())
            if self.accept("&"):
                continue
            rows.append(Term("row", tuple(cells)))
            cells = []
            if self.accept("\\", "command"):
                continue
            self.expect("end", "command")
            if self.environment() != name:
                raise NotUnderstood("an environment that is not closed")
            return Term("matrix", tuple(rows), text=name)

    def environment(self) -> str:
        self.expect("{")
        name = self.take().text
        self.expect("}")
        return name
