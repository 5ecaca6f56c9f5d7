"""Formulas as MathML: what is drawn, what stays text, and that nothing of a model's text becomes markup."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("latex2mathml")

from thinkprm_jax.report import mathematics
from thinkprm_jax.report.mathematics import TEX, formulas, mathml, with_formulas


def texts(tree) -> str:
    return "".join(part if isinstance(part, str) else texts(part) for part in tree[2:])


@pytest.mark.parametrize(
    ("source", "elements", "text"),
    [
        (r"$\frac{1}{2}$", ["mfrac", "mn"], "12"),
        (r"\(3\sqrt{2}\)", ["msqrt"], "32"),
        (r"$x < y$", ["mi", "mo"], "x<y"),
        (r"$$\begin{pmatrix}1&2\\3&4\end{pmatrix}$$", ["mtable", "mtd"], "(1234)"),
        (r"\[\sum_{i=1}^n i^2\]", ["munderover", "msup"], "∑i=1ni2"),
        (r"$\boxed{4}$", ["menclose"], "4"),
        (r"$5\text{ apples}$", ["mtext"], "5 apples"),
    ],
)
def test_what_is_drawn(source: str, elements: list[str], text: str) -> None:
    tree = mathml(source)
    assert tree is not None
    for element in elements:
        assert f"'{element}'" in repr(tree)
    assert texts(tree).replace("\N{NO-BREAK SPACE}", " ") == text
    assert tree[1] == {"display": "block" if source[:2] in ("$$", r"\[") else "inline"}


@pytest.mark.parametrize(
    "source",
    [
        r"$\frac{1}{$",
        r"$\foo{3}$",
        r"$\href{javascript:alert(1)}{x}$",
        r"$\left( a$",
        "$x^$",
        "$" + "{" * 300 + "$",
    ],
)
def test_what_cannot_be_converted_stays_text(source: str) -> None:
    assert mathml(source) is None
    assert "<" not in with_formulas(f"so {source} it is")


@pytest.mark.parametrize(
    "source",
    [
        r"$\text{<img src=x onerror=alert(1)>}$",
        r"$<script>alert(1)</script>$",
        r"$\style{background:url(//evil)}{x}$",
        r"$\class{top}{x}$",
        r"$\hspace{1em\" onclick=\"alert(1)}x$",
        r"$\text{&lt;b&gt; \" onload=1}$",
        r"$\color{red\" onclick=\"1}{5}$",
    ],
)
def test_nothing_of_a_model_s_text_becomes_markup(source: str) -> None:
    page = str(with_formulas(f"<b>before</b> {source} behind & beyond"))
    root = ElementTree.fromstring(f"<root>{page}</root>")  # well formed
    for element in root.iter():
        assert element.tag in mathematics.ELEMENTS | {"root"}
        assert set(element.attrib) <= set(mathematics._ATTRIBUTES)
    assert page.startswith("&lt;b&gt;before&lt;/b&gt; ")
    assert page.endswith(" behind &amp; beyond")


def test_random_sources_end_in_time_and_are_safe() -> None:
    pieces = [
        *r"{}^_&$<>'\"x1 ()[]",
        r"\frac",
        r"\sqrt",
        r"\text",
        r"\left",
        r"\right",
        r"\begin{array}",
        r"\\",
        "é",
    ]
    draw = random.Random(0)
    for _ in range(300):
        source = "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 60)))
        page = with_formulas(f"${source}$ and \\({source}\\)")
        for element in ElementTree.fromstring(f"<root>{page}</root>").iter():
            assert element.tag in mathematics.ELEMENTS | {"root"}


def test_formulas_of_a_text_in_their_places() -> None:
    text = "It costs $5 and $6 to get $x$ from \\(\\frac12\\); \\(\\frac{\\) not."
    found = [text[begin:end] for begin, end, _ in formulas(text)]
    assert found == ["$x$", "\\(\\frac12\\)"]
    assert len(TEX.findall(text)) == 3


def test_without_the_converter_formulas_are_text(monkeypatch) -> None:
    mathml.cache_clear()
    monkeypatch.setattr(mathematics, "can_convert", lambda: False)
    try:
        assert with_formulas("so $x$ < 1") == "so $x$ &lt; 1"
    finally:
        mathml.cache_clear()
