"""Formulas of a page: TeX to MathML when the page is made, so that it needs no script and no font of others.

The converter copies text and attributes of its source into elements, so nothing of what it makes is taken as it
is: only elements and attributes of a list, and texts as texts. What cannot be converted stays TeX.
"""

from __future__ import annotations

import functools
import html
import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from markupsafe import Markup, escape

from thinkprm_jax.report.plain import clean

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# As in text.js, which looks up what it finds.
TEX = re.compile(
    r"\$\$[^$]{1,2000}\$\$|\$(?![\s0-9]*[\s,.])[^$\n]{1,400}?[^\s$\\]\$(?![0-9])|\$[^\s$]\$"
    r"|\\\([^\n]{1,400}?\\\)|\\\[[\s\S]{1,2000}?\\\]"
)
# [element, attributes, a text or another one, ...]
Tree: TypeAlias = "list[str | dict[str, str] | Tree]"

ELEMENTS = frozenset((
    "math", "mi", "mn", "mo", "ms", "mtext", "mspace", "mrow", "mfrac", "msqrt", "mroot", "mstyle", "mpadded",
    "mphantom", "menclose", "msub", "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts",
    "mprescripts", "none", "mtable", "mtr", "mtd", "mlabeledtr",
))  # fmt: skip
_ATTRIBUTES = {
    "display": re.compile(r"block|inline"),
    "mathvariant": re.compile(r"[a-z-]{1,30}"),
    "stretchy": re.compile(r"true|false"),
    "fence": re.compile(r"true|false"),
    "separator": re.compile(r"true|false"),
    "form": re.compile(r"prefix|infix|postfix"),
    "accent": re.compile(r"true|false"),
    "movablelimits": re.compile(r"true|false"),
    "displaystyle": re.compile(r"true|false"),
    "scriptlevel": re.compile(r"[+-]?[0-9]"),
    "columnalign": re.compile(r"(?:left|right|center| ){1,400}"),
    "notation": re.compile(r"[a-z ]{1,60}"),
    "linethickness": re.compile(r"[0-9.]{1,4}(?:px|em|pt)?"),
    "width": re.compile(r"-?[0-9.]{1,6}(?:em|ex|px|pt)"),
    "minsize": re.compile(r"[0-9.]{1,5}(?:em|ex)"),
    "maxsize": re.compile(r"[0-9.]{1,5}(?:em|ex)"),
}
_DEEPEST = 60  # elements inside each other


def can_convert() -> bool:
    """Whether the converter is installed."""
    return importlib.util.find_spec("latex2mathml") is not None


def formulas(text: str) -> Iterator[tuple[int, int, Tree]]:
    """(begin, end, MathML) of the formulas in a text that could be converted."""
    for match in TEX.finditer(text):
        tree = mathml(match[0])
        if tree is not None:
            yield match.start(), match.end(), tree


@functools.lru_cache(maxsize=4096)
def mathml(source: str) -> Tree | None:
    """Of TeX with its delimiters (``$x$``, ``\\\\(x\\\\)``); None where it cannot be converted."""
    if not can_convert():
        return None
    from latex2mathml.converter import convert_to_element

    marks = 2 if source.startswith(("$$", "\\")) else 1
    display = "block" if source.startswith(("$$", "\\[")) else "inline"
    try:
        return _safe(convert_to_element(source[marks:-marks].strip(), display=display), _DEEPEST)
    except Exception:  # whatever a model wrote
        return None


def _safe(element: Element, depth: int) -> Tree:
    """Only what is on the lists; ValueError where something else is needed to show it."""
    name = element.tag.rpartition("}")[2]
    if name not in ELEMENTS or depth == 0 or element.get("href") is not None:
        raise ValueError(f"no element of ours: {name}")
    attributes = {
        key: value
        for key, value in element.attrib.items()
        if key in _ATTRIBUTES and _ATTRIBUTES[key].fullmatch(value)
    }
    tree: Tree = [name, attributes]
    text = clean(html.unescape(element.text or ""))
    if name in ("mi", "mo") and re.match(r"\\[A-Za-z]", text):
        raise ValueError(f"an unknown command: {text}")
    if text.strip() or name == "mtext":
        tree.append(text)
    for child in element:
        tree.append(_safe(child, depth - 1))
        if (child.tail or "").strip():
            raise ValueError("text between elements")
    return tree


def with_formulas(text: str) -> Markup:
    """The text for a page without scripts: escaped, its formulas as MathML."""
    pieces, end = [], 0
    for begin, behind, tree in formulas(text):
        pieces += [escape(clean(text[end:begin])), _markup(tree)]
        end = behind
    return Markup("").join([*pieces, escape(clean(text[end:]))])


def _markup(tree: Tree) -> Markup:
    name, attributes, *inside = tree
    assert isinstance(name, str)
    assert isinstance(attributes, Mapping)
    said = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in attributes.items())
    content = Markup("").join(escape(part) if isinstance(part, str) else _markup(part) for part in _parts(inside))
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), said, content)


def _parts(inside: list[str | dict[str, str] | Tree]) -> Iterator[str | Tree]:
    for part in inside:
        assert not isinstance(part, dict)
        yield part
