"""The string normaliser of answers, and what strings alone decide."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkprm_jax.grading.normalise import (
    drop_assignment,
    is_words,
    normalise,
    read_number,
    same_text,
    split_list,
    write_number,
)

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
        ("(1,234)", "(1,234)"),
        ("1, 22", "1,22"),
        (r"\$5.00", "5"),
        (".50", "0.5"),
        ("10.05", "10.05"),
        (r"15\mbox{ cm}^2", "15"),
        ("15 square feet", "15"),
        (r"90^\circ", "90"),
        (r"28\%", "28"),
        (r"x \leq 3", r"x\le3"),
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
def test_what_reads_a_normal_form_never_raises(text: str) -> None:
    normal = normalise(text)
    drop_assignment(normal)
    is_words(normal)
    read_number(normal)
    assert ",".join(split_list(normal)).replace(" ", "") == normal.replace(" ", "")
    assert same_text(normal, normal, 6) is bool(normal)


@given(st.fractions())
def test_numbers_are_written_in_normal_form(value: Fraction) -> None:
    written = write_number(value)
    assert normalise(written) == written
    if len(written) <= 300:
        assert read_number(written) == (value, False)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-0.25", Fraction(-1, 4)), (r"1\frac{1}{4}", Fraction(5, 4)), (r"-1\frac{1}{4}", Fraction(-5, 4))],
)
def test_read_number(text: str, value: Fraction) -> None:
    assert read_number(text)[0] == value


@pytest.mark.parametrize("text", ["x", r"\frac{1}{0}", "1/x", "", "1e5", "--1", r"2\frac{-1}{2}", "9" * 301])
def test_no_number(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("gold", "prediction", "verdict"),
    [
        ("5", "5", True),
        ("5", "6", False),
        (r"\frac{1}{3}", "0.333333", True),
        (r"\frac{1}{3}", "0.3333", False),
        (r"\frac{2}{4}", r"\frac{1}{2}", True),
        ("Evelyn", "evelyn", True),
        ("Evelyn", "Angela", False),
        ("x", "X", None),
        ("x=5", "5", True),
        ("5", "x=6", False),
        ("x=5", "y=5", None),
        (r"\{1,\frac{1}{2}\}", r"\{0.5,1\}", True),
        ("(1,2)", "(2,1)", None),
        ("(14/3,4/6)", "(14/3,2/3)", True),
        ("[1,2)", "[1,2]", None),
        ("(1,2),(3,4)", "(1,2),(3,4)", True),
        ("(1,2),(3,4)", "(3,4),(1,2)", None),
        ("x+1", "1+x", None),
        ("5", "", False),
        ("", "", False),
    ],
)
def test_what_strings_decide(gold: str, prediction: str, verdict: bool | None) -> None:
    assert same_text(gold, prediction, precision=6) is verdict
