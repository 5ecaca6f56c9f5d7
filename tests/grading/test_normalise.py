"""The string normaliser of answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkprm_jax.grading.normalise import normalise, split_list

PIECES = [
    *(
        "\\frac",
        "\\dfrac",
        "\\sqrt",
        "\\text{",
        "\\boxed{",
        "\\left",
        "\\right",
        "\\{",
        "\\}",
        "\\%",
        "\\\\",
        "\\",
    ),
    *(
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        " ",
        "$",
        "%",
        "/",
        "-",
        "=",
        "^",
        "_",
        "**",
        "\n",
        "½",
        "²",
        "−",
        "√",
    ),
    *("1", "20", "000", "x", "cm", "and", "degrees", "five", "\\begin{array}{c}", "\\end{array}", "\\circ", "~"),
]
LATEX = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        (r"$\dfrac{1}{2}$", r"\frac{1}{2}"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\frac1{72}", r"\frac{1}{72}"),
        (r"\frac{-3}{4}", r"-\frac{3}{4}"),
        ("-3/4", r"-\frac{3}{4}"),
        ("(3)/(4)", r"\frac{3}{4}"),
        ("3 1/2", r"3\frac{1}{2}"),
        ("½", r"\frac{1}{2}"),
        (r"10\sqrt3", r"10\sqrt{3}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"\boxed{\boxed{5}}.", "5"),
        (r"\text{Evelyn}", "Evelyn"),
        ("all real numbers", "all real numbers"),
        (r"\pi x", r"\pi x"),
        ("12,345,678", "12345678"),
        ("12{,}345", "12345"),
        (r"12,\!345", "12345"),
        ("12 345", "12345"),
        ("10, 200", "10, 200"),
        ("1,234, 5,678", "1234,5678"),
        ("x**2", "x^2"),
        (r"{6 \choose 2}", r"\binom{6}{2}"),
        (r"\pi\mathrm{x}", r"\pi x"),
        (r"\\dfrac{1}{2}", r"\frac{1}{2}"),
        ("10²", "10^{2}"),
        ("4:30 p.m.", "4:30 pm"),
        ("Solution is: $x=1$", "x=1"),
        ("(1,234)", "(1,234)"),
        ("1, 22", "1,22"),
        (r"\$5.00", "5"),
        (".50", "0.5"),
        ("10.05", "10.05"),
        (r"15\mbox{ cm}^2", "15 cm^2"),
        (r"5\mathrm{~m}", r"5\text{m}"),
        (r"5 \mathrm{~m} / \mathrm{s}", r"5\text{m/s}"),
        ("15 square feet", "15 square feet"),
        ("90°", r"90^\circ"),
        ("28%", r"28\%"),
        (r"x \leq 3", r"x\le 3"),
        (r"{1,2}", r"\{1,2\}"),
        (r"\{\}", r"\emptyset"),
        (r"6 \text{ and } 8", "6,8"),
        (r"\begin{bmatrix}1 & 2 \\ 3 & 4 \\ \end{bmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        ("**Seven**", "7"),
        ("p - q", "p-q"),
        ("", ""),
    ],
)
def test_normalise(answer: str, normal: str) -> None:
    assert normalise(answer) == normal


@given(st.one_of(LATEX, st.text(max_size=60)))
def test_normalise_is_idempotent(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@pytest.mark.parametrize(
    "text", ["{" * 2000, "{" * 900 + "5" + "}" * 900, "\\text{" * 330, "½" * 1900, "\\frac" * 390, "1," * 950]
)
def test_normalise_settles_on_the_longest_answers(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(LATEX)
def test_the_parts_of_a_list_are_the_whole_text(text: str) -> None:
    normal = normalise(text)
    assert ",".join(split_list(normal)).replace(" ", "") == normal.replace(" ", "")
