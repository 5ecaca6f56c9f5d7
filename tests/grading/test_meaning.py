"""What answers mean: which are equal, and which only look alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkprm_jax.grading.compare import vote_keys
from thinkprm_jax.grading.keys import same
from thinkprm_jax.grading.meaning import key_of

DIFFERENT = [
    # Upright constants and names are no units.
    (r"2\mathrm{e}^{2}", r"2\mathrm{e}^{3}"),
    (r"2\mathrm{e}^{2}", "2"),
    (r"1-\frac{1}{\mathrm{e}}", r"1+\frac{1}{\mathrm{e}}"),
    (r"\mathrm{C}_4^2", "4"),
    (r"\mathrm{C}_4^2", "2"),
    (r"3\mathrm{\pi}", "3"),
    (r"5\mathrm{x}", "5"),
    # Roots, lists, binomials, as people type them.
    (r"4\sqrt(3)", r"4\sqrt(2)"),
    (r"4\sqrt(3)", "4"),
    ("3√(7)", "3√(5)"),
    (r"\sqrt[3]{2}", r"\sqrt{2}"),
    (r"1,2,\dots,10", r"1,2,\dots,12"),
    ("10, 200", "10200"),
    ("77", "77, 77"),
    (r"{6 \choose 2}", r"{6 \choose 3}"),
    # Units.
    (r"5\text{ feet }6\text{ inches}", r"5\text{ feet }8\text{ inches}"),
    (r"30 \mathrm{mph}, 40 \mathrm{mph}", r"30 \mathrm{mph}, 50 \mathrm{mph}"),
    (r"5\text{ m}", r"5\text{ cm}"),
    (r"5\text{ cm}^2", r"5\text{ cm}^3"),
    (r"16\text{ students}", r"16\text{ teachers}"),
    (r"5\text{ million}", "5"),
    (r"60\text{ km/h}", r"60\text{ m/s}"),
    # Bases, congruences, functions, clocks.
    ("52_8", "52_9"),
    ("101_2", "101_3"),
    ("52_8", "52"),
    (r"x\equiv 2\pmod 7", r"x\equiv 3\pmod 7"),
    (r"x\equiv 2\pmod 7", r"x\equiv 2\pmod 5"),
    (r"2\pmod 7", "2"),
    (r"10\bmod 3", "10"),
    (r"\lg 2", "2"),
    (r"\arctg 2", "2"),
    (r"\ln 2", r"\lg 2"),
    (r"\cos 60^\circ", "-0.952413"),
    (r"\cos 60^\circ", r"\cos 60"),
    ("4:30", "8:60"),
    ("12:00", "1:00"),
    ("4:30 p.m.", "4:30 a.m."),
    # Words are words.
    ("no", "on"),
    ("yes", "no"),
    ("all real numbers", "no real numbers"),
    ("Evelyn", "Angela"),
    # Exact numbers.
    ("10^{-20}", "10^{-21}"),
    (r"1.6\times10^{-19}", r"1.7\times10^{-19}"),
    (r"\frac1{2^{64}}", r"\frac1{2^{65}}"),
    ("2^{1000}", "2^{1000}+1"),
    ("1/3", "0.3333"),
    ("1/3", "333333/1000000"),
    (r"0.\overline{3}", r"0.\overline{6}"),
    (r"0.\overline{3}", "0.3"),
    ("50%", "5"),
    (r"\pi", "3.14159"),
    ("9007199254740993", "9007199254740992"),
    # Names, relations, sets.
    ("x=5", "y=5"),
    (r"\lfloor m/2\rfloor", r"\lfloor m/3\rfloor"),
    (r"\cos(0)=1, \sin(0)=0", r"\cos(1)=1, \sin(0)=0"),
    ("2x=10", "10"),
    ("x/2=3", "3"),
    ("z=1+1=3", "z=3"),
    ("x=5", "x=6"),
    ("f(x)", "f(y)"),
    ("|x|", "x"),
    ("x^2", "x^3"),
    ("x<3", r"x\le 3"),
    ("x<3", "x>3"),
    ("y=2x+1", "y=2x-1"),
    (r"a^2+b=0", "0"),
    ("(1,2)", "(2,1)"),
    ("[0,9)", "[0,1)"),
    ("[0,1)", "(0,1)"),
    (r"(-\infty,3]\cup[5,\infty)", r"(-\infty,3]\cup(5,\infty)"),
    (r"\pm 2021", "2021"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
]
EQUAL = [
    (r"4\sqrt(2)", r"4\sqrt{2}"),
    ("3√(7)", r"3\sqrt7"),
    (r"{6 \choose 2}", "15"),
    (r"\mathrm{C}_4^2", "6"),
    (r"10\bmod 3", "1"),
    (r"x\equiv 9\pmod 7", r"x\equiv 2 \pmod{7}"),
    (r"\cos 60^\circ", r"\frac{1}{2}"),
    ("8.7e8", "870000000"),
    ("1e-3", "0.001"),
    ("1e16", "10^{16}"),
    ("0.00001", "1e-05"),
    ("1.5e3", "1500"),
    (r"6.02 \times 10^{23}", "602000000000000000000000"),
    (r"0.\overline{3}", r"\frac{1}{3}"),
    (r"0.1\overline{6}", "1/6"),
    (r"0.\dot{1}4285\dot{7}", "1/7"),
    ("1,234, 5,678", "1234, 5678"),
    ("10{,}000", "10,000"),
    (r"\frac{\pi}{2}", "pi/2"),
    (r"2\pi", "2pi"),
    (r"\ln 2", "ln(2)"),
    ("x^2", "x**2"),
    ("e^{16}-1", "exp(16)-1"),
    (r"\log_2 8", "3"),
    (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"\frac{\sqrt{6}+\sqrt{2}}{4}", r"\cos 15^\circ"),
    ("(x-1)(x+1)", "x^2-1"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"xe^x", r"x \mathrm{e}^{x}"),
    ("a+bi", "bi+a"),
    (r"\frac{2}{4}", "0.5"),
    (r"1\frac{1}{2}", "3/2"),
    ("3 1/2", "3.5"),
    ("1/3", "0.333333"),
    (r"\sqrt{17}", "4.123105625617661"),
    ("52_8", "42"),
    ("1011_{two}", "11"),
    ("50%", "0.5"),
    ("12%", "12"),
    (r"90^\circ", "90"),
    (r"90^\circ", r"\frac{\pi}{2}"),
    (r"16\text{ students}", "16"),
    (r"15\text{ cm}^2", "15"),
    (r"5\text{ feet }6\text{ inches}", r"66\text{ inches}"),
    (r"5\text{ m}", r"500\text{ cm}"),
    (r"60\mathrm{~km/h}", "60 km/h"),
    ("15 square feet", r"15\text{ ft}^2"),
    (r"5\text{ million}", "5000000"),
    ("no", r"\text{No}"),
    (r"\text{Evelyn}", "evelyn"),
    ("A", "(A)"),
    ("4:30 p.m.", "4:30 pm"),
    ("2:3", "4:6"),
    ("x=5", "5"),
    (r"\frac{NO}{BO}=\frac{1}{2}", "1/2"),
    ("|AB|=1", "1"),
    ("z=1+1=2", "z=4-2=2"),
    ("f(x)=2x", "2x"),
    ("y=2x+1", "2x-y=-1"),
    ("x=1,2", "1, 2"),
    (r"x=1 \text{ or } x=2", "2, 1"),
    (r"x=\pm 2", "2, -2"),
    (r"3 \pm \sqrt{2}", r"\{3+\sqrt{2}, 3-\sqrt{2}\}"),
    ("(p,q)=(3,2)", "(3,2)"),
    ("p=5,q=2; p=7,q=2", "(5,2), (7,2)"),
    ("(1,3)", "1,3"),
    ("x<1", "-x>-1"),
    (r"5\ge x", r"x\le 5"),
    (r"x\in[-2,7]", r"-2\le x\le 7"),
    (r"\{x|-2\leq x < 1\}", "[-2,1)"),
    (r"x<1 \text{ or } x>3", r"(-\infty,1)\cup(3,+\infty)"),
    (r"(-\infty,3]\cup[5,\infty)", r"[5,\infty)\cup(-\infty,3]"),
    (r"(0,1]\cup[1,2)", "(0,2)"),
    (r"x\ne 3", r"(-\infty,3)\cup(3,\infty)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1 & 2 \\ 3 & 4 \\ \end{bmatrix}"),
]


def equal(first: str, second: str) -> bool:
    one, two = key_of(first), key_of(second)
    assert one is not None
    assert two is not None
    return same(one, two)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_answers_that_differ(first: str, second: str) -> None:
    assert not equal(first, second)
    assert not equal(second, first)


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_answers_that_are_equal(first: str, second: str) -> None:
    assert equal(first, second)
    assert equal(second, first)


@pytest.mark.parametrize(("first", "second"), DIFFERENT + EQUAL)
def test_votes_split_where_grading_does(first: str, second: str) -> None:
    one, two = vote_keys([first, second])
    assert (one == two) is equal(first, second)


RIGHT = ["5", "-3", r"\frac{1}{2}", "0.25", r"3\sqrt{2}", r"2\pi", "x^2+1", "(1,2)", r"\{1,2\}", "[0,1)", "x=5",
    "x<3",
         "1,234", "2^{10}", r"\ln 2", "e^2", "7:32", r"x\equiv 2\pmod 7", "5 cm", r"\text{no}"]  # fmt: skip
# What changes any answer that it is put behind. A unit, a percent sign, a label or a name on one side only is
# taken for a matter of writing (EQUAL has them), so these are not among them.
MEANINGFUL = ["+1", "-2", r"\cdot 3", "/7", r"\sqrt{2}", r"\pi", "x", ", 9", r"\cup\{9\}", "=3", "<8", "^3",
    "!", "_2",
              r"\mathrm{e}", r"\pmod 9", r"\lg 3", r"\text{ or }9", r"\dots", " million", r"\foo", "?",
              ":59"]  # fmt: skip

SAME = {
    ("x^2+1", "^3"),
    ("x^2+1", "!"),
    ("x^2+1", "_2"),
    (r"\ln 2", "!"),
    ("7:32", "/7"),
}  # 1^3, 2!, 7:(32/7) as a ratio


@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize("token", MEANINGFUL)
def test_a_token_more_on_one_side_is_another_answer(right: str, token: str) -> None:
    if (right, token) not in SAME:
        assert not equal(right, right + token)


@pytest.mark.parametrize(
    "unread", [r"\foo 5", r"\frac{1}{", "5 {", "x = = 5", r"\int_0^1", "((5)", "5))", r"\sqrt", "3 4"]
)
def test_what_is_not_understood_is_its_text(unread: str) -> None:
    assert equal(unread, f" {unread} ")
    assert not equal(unread, "5")
    assert not equal(unread, unread + "1")


@given(st.fractions(max_denominator=10**9), st.fractions(max_denominator=10**9))
def test_fractions_are_compared_exactly(first: object, second: object) -> None:
    assert equal(f"\\frac{{{first.numerator}}}{{{first.denominator}}}", str(second)) is (first == second)


@given(st.integers(-(10**18), 10**18), st.integers(0, 5))
def test_a_decimal_is_its_fraction(number: int, places: int) -> None:
    digits = f"{abs(number):0{places + 1}}"
    decimal = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else digits
    assert equal(("-" if number < 0 else "") + decimal, f"{number}/{10**places}")


PIECES = ["\\frac", "{", "}", "\\sqrt", "x", "1", "20", "(", ")", "[", "]", ",", ";", "\\cup", "=", "<", "^",
    "_", "\\text{a}",
          "\\", "\\%", " ", "!", "|", "\\{", "\\}", "\\ln", "\\sin", "i", "e", "\\pi", "\\infty", "-", "/",
          "\\pm", ":",
          "\\pmod", "\\binom", "\\circ", "0.5", "cm", "or", "\\le", "\\in", "\\overline", "9999"]  # fmt: skip


@settings(max_examples=400, deadline=2000)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_no_text_raises_and_each_is_itself(text: str) -> None:
    key = key_of(text)
    assert key is None or same(key, key)


@pytest.mark.parametrize(
    "huge",
    ["9^{9^{9^{9}}}", "10^{10^{9}}+1", "(10^{9})!", r"\sin(10^{10^{9}})", "e^{e^{e^{9}}}", "(" * 900,
    "1" * 1900, "2^" * 900,
     r"\binom{10^9}{5 \cdot 10^8}", r"\frac{1}{0}", "0^0", r"\ln 0", "1e999999999"],
)  # fmt: skip
def test_what_cannot_be_computed_is_compared_as_text(huge: str) -> None:
    assert equal(huge, huge)
    assert not equal(huge, "7")
