"""The tokens of a normalised answer. Every character belongs to one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from thinkprm_jax.grading.terms import NotUnderstood

TokenKind = Literal["number", "based", "repeating", "command", "unit", "word", "letter", "mark"]

# fmt: off
FUNCTIONS = {name: name for name in (
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "arcsin", "arccos", "arctan",
    "arccot",
    "ln", "log", "lg", "exp", "sqrt", "abs", "floor", "ceil", "gcd", "lcm", "max", "min",
)} | {
    "tg": "tan", "ctg": "cot", "cotg": "cot", "arctg": "arctan", "arcctg": "arccot", "asin": "arcsin",
    "acos": "arccos", "atan": "arctan", "sh": "sinh", "ch": "cosh", "th": "tanh", "cosec": "csc",
    "ceiling": "ceil",
}
GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota",
    "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega",
    "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
))
# Short runs of letters that are words all the same; `xy` is a product.
_SHORT_WORDS = frozenset((
    "an", "as", "at", "am", "pm", "by", "my", "pt", "vs", "bat", "cat", "can", "bad", "day", "dad", "may", "mad",
    "mat", "map", "man", "any", "say", "was", "way", "war", "bay", "car", "cab", "tax", "ray", "pay", "dry", "fry",
    "is", "it", "in", "if", "be", "me", "we", "sky", "spy", "try", "why", "shy", "half", "rat", "sat", "vat",
    "bar", "bag", "cap", "gap", "lap", "sad", "fat",
    "cup", "bus", "bun", "nut", "pan", "ant", "van", "cub", "pup", "tub", "yam", "arm", "run", "cut",
))
# fmt: on
# What people type without a backslash.
_SPELLED = {
    name: name for name in ("pi", "alpha", "beta", "gamma", "theta", "lambda", "sigma", "omega", "infty")
} | {
    "infinity": "infty",
    "inf": "infty",
    "oo": "infty",
}  # fmt: skip
_PRODUCT = frozenset("abcdkmnpqrstuvwxyz")  # letters that stand beside each other in products

# What math-verify is asked about, and what may stand beside it.
_SYMBOLIC = frozenset(("sum", "prod", "int", "lim", "det"))
_COMMANDS = frozenset(("frac", "sqrt", "cdot", "pi", "to", "rightarrow", "infty", "binom")) | GREEK

_TOKEN = re.compile(
    r"""
    (?P<repeating>\d+\.\d*(?:\\overline\s*\{\d+\}|(?:\\dot\s*\{?\d\}?)(?:\d*\\dot\s*\{?\d\}?)?|\(\d+\))
      | \d+\.\d*?(?:(\d)\2{2,}|(\d{2,6}?)\3+)\\[lc]?dots(?![A-Za-z]))
  | (?P<based>(?:\d[0-9A-Z]*(?:\.[0-9A-Z]+)?|[A-F][0-9A-F]+(?=_(?:\{\s*)?16(?!\d)))
      _(?:\{\s*(?:\d+|[a-z]+)\s*\}|\d+))
  | (?P<number>\d+(?:\.\d{6,}\\[lc]?dots(?![A-Za-z])|\.\d+)?(?:[eE][+-]?\d+(?![\w.]))?)
  | (?P<unit>\\text\{[^{}]*\}(?:\^\{?-?\d\}?)?)
  | (?P<command>\\(?:[A-Za-z]+|.))
  | (?P<word>[^\W\d_]{2,})
  | (?P<letter>[^\W\d_])
  | (?P<mark>\.{3}|.)
    """,
    re.VERBOSE | re.DOTALL,
)

_OPERATIONS = {"^", "+", "-", "=", "_", "<", ">", "le", "ge", "frac", "sqrt", "sin", "cos", "ln", "cdot"}


class Token(NamedTuple):
    """text: without the backslash of a command. glued: no space stands before it."""

    kind: TokenKind
    text: str
    glued: bool = True


def tokenize(normal: str) -> list[Token]:
    """The tokens of a normalised answer; white space only says whether a token is glued to the one before."""
    tokens: list[Token] = []
    glued = True
    for match in _TOKEN.finditer(normal):
        kind, text = match.lastgroup, match[0]
        if text.isspace():
            glued = False
            continue
        if kind == "command":
            text = text[1:]
        elif kind == "number":
            text = text.partition("\\")[0]
        elif kind == "word" and text in _SPELLED:
            kind, text = "command", _SPELLED[text]
        tokens.append(Token(kind, text, glued))  # type: ignore[arg-type]
        glued = True
    return tokens


def is_product(word: str, in_formula: bool = False) -> bool:
    """Whether a run of letters is a product of variables (`xy`), and not a word (`no`).

    in_formula: whether it stands among operations, where `xe` and `bi` are products too.
    """
    letters = _PRODUCT | {"e", "i"} if in_formula else _PRODUCT
    return len(word) <= 3 and set(word) <= letters and word not in _SHORT_WORDS


def is_name(word: str) -> bool:
    """Whether a run of letters is one name, as geometry has it: `AB`."""
    return word.isascii() and word.isupper()


def is_symbolic(normal: str) -> bool:
    """Whether a text is a formula with a sum, an integral or the like, and of nothing that we do not know."""
    if not any(name in normal for name in _SYMBOLIC):
        return False
    tokens = tokenize(normal)
    commands = {token.text for token in tokens if token.kind == "command"}
    return (
        bool(commands & _SYMBOLIC)
        and not _has_parts(tokens)
        and all(
            token.kind in ("number", "letter", "mark")
            or (token.kind == "command" and (token.text in _SYMBOLIC | _COMMANDS or token.text in FUNCTIONS))
            or (token.kind == "word" and len(token.text) == 2 and token.text[0] == "d")  # `dx`
            for token in tokens
        )
    )


def _has_parts(tokens: Sequence[Token]) -> bool:
    """Whether a list or relation stands outside the limits of sums: math-verify reads one expression."""
    depth = 0
    for token in tokens:
        if token.kind == "mark":
            depth += (token.text == "{") - (token.text == "}")
            if not depth and token.text in ("=", ",", ";", "<", ">"):
                return True
    return False


class TokenCursor:
    """Tokens that are read from `position` on."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        # Among operations a run of letters is a product, where alone it may be a word.
        self.in_formula = any(token.text in _OPERATIONS for token in tokens)
        self.bars = 0  # open `|`
        self.depth = 0

    def at_end(self) -> bool:
        return self.position >= len(self.tokens)

    def peek(self, ahead: int = 0) -> Token | None:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def next_is(self, *texts: str, kind: str = "mark", ahead: int = 0) -> bool:
        place = self.position + ahead
        if place >= len(self.tokens):
            return False
        token = self.tokens[place]
        return token.text in texts and token.kind == kind

    def command_is(self, *texts: str, ahead: int = 0) -> bool:
        return self.next_is(*texts, kind="command", ahead=ahead)

    def take(self) -> Token:
        token = self.peek()
        if token is None:
            raise NotUnderstood("it ends too early")
        self.position += 1
        return token

    def accept(self, text: str, kind: str = "mark") -> bool:
        if self.next_is(text, kind=kind):
            self.position += 1
            return True
        return False

    def expect(self, text: str, kind: str = "mark") -> None:
        if not self.accept(text, kind):
            raise NotUnderstood(f"no {text}")
