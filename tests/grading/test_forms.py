"""The same answer in two forms, each with an answer that looks like it and is another."""

from __future__ import annotations

import pytest

from thinkprm_jax.grading.compare import answers_equal, vote_keys
from thinkprm_jax.grading.labels import counted

# (an answer, the same in another form, another answer in that form)
FORMS = [
    # Named values and tuples of them.
    ("a=3, b=4", "(a,b)=(3,4)", "(a,b)=(4,3)"),
    ("a=3, b=4", "(b,a)=(4,3)", "(b,a)=(3,4)"),
    ("a=3, b=4", "(a,b)=(3,4)", "(a,c)=(3,4)"),
    (r"a=3\text{ and }b=4", "(a, b) = (3, 4)", "(a, b) = (3, 5)"),
    ("x=1,y=2; x=3,y=4", "(x,y)=(1,2),(3,4)", "(x,y)=(1,2),(4,3)"),
    (r"(x,y)\in\{(1,2),(3,4)\}", "(1,2), (3,4)", "(1,2), (4,3)"),
    ("x=1, y=2", "1, 2", "2, 1"),
    ("f(1)=3, f(2)=5", "f(2)=5, f(1)=3", "f(2)=3, f(1)=5"),
    (r"x\in\{1,2\}", r"x=1\text{ or }x=2", r"x=1\text{ or }x=3"),
    (r"x=\{1,2\}", "x=2, x=1", "x=2, x=2"),
    (r"x\in\{3\}", "x=3", "x=4"),
    ("x=y=2", "(x,y)=(2,2)", "(x,y)=(2,3)"),
    # Ratios.
    ("3 to 2", "3:2", "2:3"),
    (r"6\text{ to }4", "3 : 2", "3 : 4"),
    ("3:2", r"\frac{3}{2}", r"\frac{2}{3}"),
    ("10 to 15", "2:3", "3:2"),
    ("1 to 2 to 3", "2:4:6", "1:2:4"),
    ("3 out of 4", r"\frac{3}{4}", r"\frac{4}{3}"),
    # Matrices and vectors.
    ("[[1,2],[3,4]]", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    ("[[1],[2]]", r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{bmatrix}1&2\end{bmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)", "(2,1)"),
    (r"\langle 1,2\rangle", "(1,2)", "(2,1)"),
    ("[[1,2]]", r"\begin{pmatrix}1&2\end{pmatrix}", "[1,2]"),
    # What was counted.
    ("16 people", "16 persons", "16 parsons"),
    (r"16\text{ people}", "16 person", "15 persons"),
    ("3 boxes", r"3\text{ box}", "3 foxes"),
    ("3 berries", "3 berry", "3 ferries"),
    ("2 knives", "2 knife", "2 wives"),
    ("3 buses", "3 bus", "3 bushes"),
    ("3 planes", "3 plane", "3 plans"),
    ("4 children", "4 child", "4 chills"),
    # Measures of several units.
    ("1 hour and 20 minutes", r"1\text{ hour }20\text{ minutes}", "1 hour and 21 minutes"),
    ("5 feet, 6 inches", r"66\text{ inches}", r"67\text{ inches}"),
    # Times of day.
    ("3:00 pm", r"3\text{ p.m.}", r"3\text{ a.m.}"),
    ("4:30 p.m.", "4:30", "4:31"),
    # Congruences, repeating decimals, half-open intervals as in France.
    (r"x\equiv 5\pmod{12}", r"x \equiv 5 \bmod 12", r"x \equiv 5 \bmod 13"),
    ("0.333...", r"\frac{1}{3}", "0.333"),
    (r"0.1666\ldots", r"\frac{1}{6}", r"\frac{1}{7}"),
    ("0.272727...", r"\frac{3}{11}", r"\frac{3}{13}"),
    ("]0,1[", "(0,1)", "[0,1]"),
    ("[0,1[", "[0,1)", "(0,1]"),
    ("0.0011_2", r"\frac{3}{16}", "0.0011_3"),
    (r"45\text{ units}^2", "45 square units", "45 cubic units"),
    ("45 sq units", "45", "46"),
    # Phrases.
    ("all real numbers", r"(-\infty,\infty)", r"(0,\infty)"),
    (r"x\in\mathbb{R}", "all real numbers", "no real numbers"),
    ("no solution", r"\emptyset", "0"),
    ("DNE", "does not exist", "exists"),
    (r"-\infty", "negative infinity", "infinity"),
    # Functions.
    (r"\binom{n}{2}", r"\frac{n(n-1)}{2}", r"\frac{n(n+1)}{2}"),
    (r"\sqrt[3]{x}", "x^{1/3}", "x^{1/2}"),
    (r"\sqrt{x}\sqrt{x}y", "xy", "-xy"),
    (r"\sqrt{x^2+2x+1}", "|x+1|", "x+1"),
    (r"|x|^2", "x^2", "x"),
    (r"\lceil\frac{n}{2}\rceil", r"\lfloor\frac{n+1}{2}\rfloor", r"\lfloor\frac{n}{2}\rfloor"),
    (r"\lfloor x+1\rfloor", r"\lfloor x\rfloor+1", r"\lfloor x\rfloor"),
    (r"\lfloor\sqrt{n-1}\rfloor", r"\lfloor\sqrt{-1+n}\rfloor", r"\lfloor\sqrt{n-2}\rfloor"),
    (r"\lfloor\frac{n^2}{4}\rfloor", r"\lfloor n^2/4\rfloor", r"\lfloor\frac{n^2+3}{4}\rfloor"),
    (r"\lfloor\frac{m+n}{2}\rfloor", r"\lfloor\frac{n+m}{2}\rfloor", r"\lceil\frac{n+m}{2}\rceil"),
    (r"\lfloor x\rfloor", r"\lfloor 1+x\rfloor-1", r"\lceil x\rceil"),
    (r"\gcd(m,n)", r"\gcd(n,m)", "m"),
    (r"\max(a,b)", r"\max(b,a)", "a"),
    (r"\max(a,b)", r"\frac{a+b+|a-b|}{2}", "b"),
    ("|x-y|", "|y-x|", "x-y"),
    ("|x-5|", "|5-x|", "5-x"),
    ("|x+5|", r"\sqrt{(x+5)^2}", "x+5"),
    (r"y=\lfloor x\rfloor", r"\lfloor x\rfloor-y=0", r"y=\lceil x\rceil"),
    (r"\log_2 x", r"\frac{\ln x}{\ln 2}", r"\frac{\ln x}{\ln 3}"),
    (r"x^{\log_2 8}", "x^3", "x^4"),
    (r"\frac{\sin 2x}{2}", r"\sin x\cos x", r"\sin x"),
]
# A zero would swallow what stands beside it.
SWALLOWED = ["0x1F", "0xy", "0xFF", r"0\pi", "x0", r"\pi0", "0(x+1)", "(0)x", "0.0x", r"0\sqrt{7}", "-3,0xy",
            "3+0xy"]  # fmt: skip


@pytest.mark.parametrize(("answer", "same", "other"), FORMS)
def test_two_forms_of_one_answer(answer: str, same: str, other: str) -> None:
    assert answers_equal(answer, same)
    assert answers_equal(same, answer)
    assert not answers_equal(answer, other)
    assert not answers_equal(other, answer)


@pytest.mark.parametrize(("answer", "same", "other"), FORMS)
def test_votes_agree_with_grading(answer: str, same: str, other: str) -> None:
    one, two = vote_keys([answer, same])
    assert one == two
    one, two = vote_keys([answer, other])
    assert one != two


@pytest.mark.parametrize("swallowed", SWALLOWED)
def test_a_zero_swallows_nothing(swallowed: str) -> None:
    assert answers_equal(swallowed, swallowed)
    assert not any(answers_equal(swallowed, other) for other in ("0", "-3,0", "3", "31", swallowed + "z"))


@pytest.mark.parametrize("written", ["x1", "3x2", "a1+b1"])
def test_a_number_behind_a_name_is_no_factor(written: str) -> None:
    assert answers_equal(written, f"{written}.")
    assert not any(answers_equal(written, other) for other in ("x", "6x", "a+b", r"x\cdot 1"))


@pytest.mark.parametrize(
    ("product", "value"),
    [(r"0\cdot x", "0"), ("0*x", "0"), (r"\frac{0}{x}", "0"), ("3+0i", "3"), (r"0\text{ cm}", "0"), ("0!", "1")],
)
def test_a_zero_with_a_sign_is_understood(product: str, value: str) -> None:
    assert answers_equal(product, value)


@pytest.mark.parametrize("number", range(2, 30))
def test_floors_that_differ_at_one_number_only_are_told_apart(number: int) -> None:
    assert not answers_equal(rf"\lfloor\sqrt{{n+{number}}}\rfloor", rf"\lfloor\sqrt{{n+{number - 1}}}\rfloor")
    assert not answers_equal(rf"\lfloor\frac{{n}}{{{number}}}\rfloor", rf"\lfloor\frac{{n+1}}{{{number}}}\rfloor")


@pytest.mark.parametrize(
    ("many", "one"),
    [("horses", "horse"), ("classes", "class"), ("movies", "movie"), ("gloves", "glove"), ("potatoes", "potato"),
     ("red boxes", "red box"), ("days", "day"), ("houses", "house"), ("shoes", "shoe"), ("leaves", "leaf"),
     ("pies", "pie"), ("mice", "mouse")],
)  # fmt: skip
def test_one_and_many(many: str, one: str) -> None:
    assert counted(many) == counted(one)
