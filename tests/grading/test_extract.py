"""Finding the final answer in a solution."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkprm_jax.grading.extract import Found, extract_answer, find_answer, read_letter

PIECES = [
    *(
        "\\boxed{",
        "\\boxed",
        "\\fbox{",
        "{",
        "}",
        "\\{",
        "\\}",
        "\\",
        "$",
        "$$",
        "\\(",
        "\\)",
        "\\[",
        "**",
        "\n",
        " ",
    ),
    *(
        "The answer is",
        "Final Answer:",
        "answer",
        ":",
        "答案是",
        "I hope",
        ".",
        ",",
        "1",
        "-2",
        "1,000",
        "3/4",
        "and",
    ),
    *("A", "B", "(C)", "option", "x"),
]


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        (r"so \boxed{1}, no, \boxed{\frac{1}{2}} it is", r"\frac{1}{2}", "boxed"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", "boxed"),
        (r"\boxed{\left\{ x \}}", r"\left\{ x \}", "boxed"),
        (r"\boxed{7} and then \boxed{}", "7", "boxed"),
        (r"\boxed{7} and then \boxed{8 +", "7", "boxed"),
        (r"\boxed{\boxed{7} cm}", r"\boxed{7} cm", "boxed"),
        (r"$\boxed{1}$ and $\boxed{-2}$.", "1, -2", "boxed"),
        (r"\boxed{5} so, \boxed{5}", "5", "boxed"),
        ("The answer is 5. I hope it is correct.", "5", "phrase"),
        ("The answer is 3.14.", "3.14", "phrase"),
        ("Therefore, the final answer is: $\\frac{3}{4}$. I hope it is correct.", r"\frac{3}{4}", "phrase"),
        ("the answer is 1. Wait.\nThe answer is \\(2\\)", "2", "phrase"),
        ("**Final Answer:** 7 apples\nBye", "7", "phrase"),
        ("Answer: 12", "12", "phrase"),
        ("答案是 7。", "7。", "phrase"),
        ("it took 3 days and cost 1,234.5 in all", "1,234.5", "number"),
        ("we get 14/3.", "14/3", "number"),
        ("so 5-3 = .5", ".5", "number"),
        ("#### 18", "18", "marked"),
        ("so\n#### 18\nNote: this has 2 of them.", "18", "marked"),
        ("#### 18 (2 of each)", "18", "marked"),
        ("#### 1,234", "1,234", "marked"),
        ("<answer> 42 </answer> as of 2024.", "42", "marked"),
        (r"\boxed{7}, that is\n#### 8", "7", "boxed"),
        ("The answer is 16 students present out of 24.", "16", "phrase"),
        ("The answer is that there are 16 students", "16", "phrase"),
        ("The answer is 5 cm long", "5 cm", "phrase"),
        ("The answer is 5 million dollars.", "5 million dollars", "phrase"),
        ("The answer is 5 or 6.", "5 or 6", "phrase"),
        ("the answer is $1$ and $2$.", "1, 2", "phrase"),
        (r"-\frac{10}{9}", r"-\frac{10}{9}", "whole"),
        (r"so it is $\frac{1}{2}$.", r"\frac{1}{2}", "formula"),
        (r"so it is \(3\sqrt{2}\).", r"3\sqrt{2}", "formula"),
        (r"so it is $(3, \frac{\pi}{2})$", r"(3, \frac{\pi}{2})", "formula"),
        (r"Hence \[x = \sqrt{51}.\]", r"\sqrt{51}", "formula"),
        (r"so it is $\sum_{k=1}^n k$", r"\sum_{k=1}^n k", "formula"),
        ("so $x+1$ makes 3 apples", "3", "number"),
        ("AZYUK2A said 4", "4", "number"),
        ("the rest is 5-3", "3", "number"),
    ],
)
def test_find_answer(text: str, answer: str, rule: str) -> None:
    assert find_answer(text) == Found(answer, rule)


@pytest.mark.parametrize("text", ["", "no idea", r"\boxed{}", "the answer is", "  \n"])
def test_no_answer(text: str) -> None:
    assert find_answer(text) is None
    assert extract_answer(text) is None


def test_an_extracted_answer_is_normalised() -> None:
    assert extract_answer(r"thus $\boxed{\left( 3, \dfrac\pi2 \right)}$.") == r"(3,\frac{\pi}{2})"


def test_exact_answers_stay_as_they_stand() -> None:
    assert extract_answer(r"\boxed{ Paris,  France }", kind="exact") == "Paris,  France"


def test_a_number_is_no_exact_answer() -> None:
    assert extract_answer("we get 14", kind="exact") is None


@pytest.mark.parametrize(
    ("text", "letter", "rule"),
    [
        (r"\boxed{B}", "B", "boxed"),
        (r"\boxed{\text{(C)}}", "C", "boxed"),
        ("The answer is (D).", "D", "phrase"),
        ("the correct option is **A**", "A", "phrase"),
        ("Answer: B) 12", "B", "phrase"),
        (r"\boxed{12}, so the answer is C", "C", "phrase"),
        ("I take C, not a box", "C", "letter"),
    ],
)
def test_choice(text: str, letter: str, rule: str) -> None:
    assert find_answer(text, kind="choice") == Found(letter, rule)


def test_neither_article_nor_pronoun_is_a_choice() -> None:
    assert find_answer("A man said that I must go", kind="choice") is None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("(B)", "B"), ("B.", "B"), (r"$\text{(B)}$", "B"), ("B: 12", "B"), ("Bob", None), ("", None)],
)
def test_read_letter(answer: str, letter: str | None) -> None:
    assert read_letter(answer) == letter


@given(
    st.one_of(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.text(max_size=80)),
    st.sampled_from(["math", "choice", "exact"]),
)
def test_extraction_never_raises_and_never_finds_an_empty_answer(text: str, kind: str) -> None:
    assert extract_answer(text, kind) != ""


BALANCED = st.recursive(
    st.text("ab1+ ", min_size=1, max_size=5), lambda inner: inner.map(lambda text: "x{" + text + "}y")
)


@given(before=st.text(max_size=20), content=BALANCED.filter(str.strip), after=st.text("abc. $\n", max_size=20))
def test_the_last_box_is_found_whatever_stands_around_it(before: str, content: str, after: str) -> None:
    before = before.replace("\\", "")  # a backslash would escape the one of the box
    assert find_answer(before + "\\boxed{" + content + "}" + after) == Found(content.strip(), "boxed")


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\boxed{1}", "answer is ", "answer :", "answer is $", "\\(", "1,", "(", "\n", "option "]
)
def test_long_texts_take_no_quadratic_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    find_answer(text)  # minutes, where a pattern tries every split of the text
    find_answer(text, kind="choice")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 5 feet 6 inches.", "5 feet 6 inches"),
        ("Final answer: 3 hours 20 minutes in all", "3 hours 20 minutes"),
        ("The answer is 5 feet 6 of them like.", "5 feet"),
        ("The answer is 2 pi.", "2 pi"),
        ("The answer is therefore 7.", "7"),
        ("The answer is approximately 3.5 cups.", "3.5"),
        ("The answer is thus $x+1$.", "x+1"),
        ("The answer is 10 - 4 = 6 apples.", "6"),
        ("The answer is x = 4.", "x=4"),
        ("The answer is 4:30 pm on Tuesday.", "4:30 pm"),
        ("The answer is 4:30 to 5:30.", "4:30 to 5:30"),
    ],
)
def test_a_quantity_of_several_units_and_what_prose_says_before_a_number(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize("piece", ["1 cm ", "1=", "1 + ", "4:30 pm "])
def test_a_long_answer_in_prose_is_read_in_little_time(piece: str) -> None:
    started = time.process_time()
    find_answer("The answer is " + piece * 50_000 + "1")
    assert time.process_time() - started < 2
