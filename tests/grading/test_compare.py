"""Equality of answers and the keys of votes, with math-verify behind them for what our grammar lacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from thinkprm_jax.grading import compare as answers
from thinkprm_jax.grading import pool as answers_pool
from thinkprm_jax.grading.compare import answers_equal, equal_many, vote_keys


@pytest.fixture(autouse=True, scope="module")
def one_pool() -> Iterator[None]:
    """One worker for this file, ended with it."""
    yield
    answers_pool.shared_pool().close()


@pytest.fixture
def no_algebra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        pytest.fail("a worker was asked")

    monkeypatch.setattr(answers, "shared_pool", refuse)


@pytest.mark.parametrize(
    ("gold", "prediction", "equal"),
    [
        (r"\sum_{k=1}^{10} k", "55", True),
        (r"\sum_{k=1}^{10} k", "56", False),
        (r"\int_0^1 x^2 dx", r"\frac{1}{3}", True),
        (r"\lim_{x\to 0}\frac{\sin x}{x}", "1", True),
    ],
)
def test_sums_integrals_and_limits_are_read_by_math_verify(gold: str, prediction: str, equal: bool) -> None:
    assert answers_equal(gold, prediction) is equal


@pytest.mark.parametrize(
    ("gold", "prediction", "equal"),
    [
        (r"so $x=\boxed{\frac{1}{2}}$.", "The answer is 1/2.", True),
        ("$9$", "Add 4 and 5. Final Answer: The final answer is $9$. I hope it is correct.", True),
        ("$9$", "Add 4 and 5. Final Answer: The final answer is $8$. I hope it is correct.", False),
        (r"\boxed{x+1}", r"we get $\boxed{1+x}$", True),
        ("$[0,1)$", "the interval is $(0, 1)$", False),
        ("2x+4y-3=0", r"$y=-\frac{1}{2}x+\frac{3}{4}$", True),
    ],
)
def test_answers_in_texts(gold: str, prediction: str, equal: bool) -> None:
    assert answers_equal(gold, prediction, form="text") is equal


@pytest.mark.parametrize("precision", [3, 4])
def test_decimals_are_rounded_to_the_precision(precision: int) -> None:
    assert answers_equal(r"\sqrt{2}", "1.4144", precision=precision) is (precision == 3)


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_no_answer_equals_nothing(empty: str | None, no_algebra: None) -> None:
    assert not answers_equal(empty, empty)
    assert not answers_equal("5", empty)
    assert not answers_equal(empty, "5")


def test_ordinary_answers_need_no_worker(no_algebra: None) -> None:
    pairs = [("1,000", "1000"), (r"\frac{14}{3}", "14/3"), ("x+1", "1+x"), ("Evelyn", r"\text{Evelyn}")]
    assert equal_many(pairs) == [True] * 4
    assert vote_keys(["0.50", r"\text{Evelyn}", "x+1"]) == [r"\frac{1}{2}", "Evelyn", "x+1"]


@pytest.mark.parametrize(
    ("gold", "prediction", "equal"),
    [
        ("B", "(B)", True),
        (r"\text{(B)}", "B. 12", True),
        ("B", "C", False),
        ("B", "12", False),
        ("12", "12", False),
    ],
)
def test_choices(gold: str, prediction: str, equal: bool, no_algebra: None) -> None:
    assert answers_equal(gold, prediction, kind="choice") is equal


@pytest.mark.parametrize(("prediction", "equal"), [("Paris ", True), ("paris", False), (r"\text{Paris}", False)])
def test_exact(prediction: str, equal: bool, no_algebra: None) -> None:
    assert answers_equal("Paris", prediction, kind="exact") is equal


def test_choices_in_texts(no_algebra: None) -> None:
    assert answers_equal("The answer is (B).", r"so $\boxed{\text{B}}$", kind="choice", form="text")


def test_many_pairs_keep_their_order() -> None:
    pairs = [(f"x+{i}", f"{i + i % 2}+x") for i in range(40)]
    assert equal_many(pairs) == [i % 2 == 0 for i in range(40)]


def test_an_answer_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Pool:
        def run_many(self, task: str, arguments: list, limit: float) -> list:
            asked.extend(arguments)
            return [[["55", "0"]]] * len(arguments)

    monkeypatch.setattr(answers, "shared_pool", Pool)
    monkeypatch.setattr(answers, "_memory", answers._Memory())
    assert (
        equal_many([(r"\sum_{k=1}^{10} k", "55")] * 3) + equal_many([(r"\sum_{k=1}^{10} k", "55")]) == [True] * 4
    )
    assert len(asked) == 1


@pytest.mark.parametrize(
    "group",
    [
        ["0.5", r"\frac12", "2/4", r"x = \frac{1}{2}"],
        [r"3\sqrt{13}", r"\sqrt{117}"],
        ["(x+1)^2", "x^2 + 2x + 1"],
        ["p - q", "-q + p"],
        [r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac\pi2)"],
        ["1, 2", "2, 1", r"\{1,2\}"],
        [r"\text{Evelyn}", "evelyn"],
    ],
)
def test_equal_answers_vote_together(group: list[str]) -> None:
    assert len(set(vote_keys(group))) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [("(1,2)", "(2,1)"), ("[0,1)", "(0,1)"), ("Evelyn", "Angela"), ("x+1", "x-1"), ("1/3", "0.333")],
)
def test_other_answers_vote_apart(first: str, second: str) -> None:
    assert len(set(vote_keys([first, second]))) == 2


def test_what_is_not_understood_keeps_its_spelling() -> None:
    assert vote_keys([r"\frac{1}{"]) == [r"\frac{1}{"]


def test_a_vote_of_two_readings_goes_to_the_bare_value() -> None:
    assert vote_keys(["x=5", "5", "y=5"]) == ["5"] * 3
    assert vote_keys(["x=5", "y=5"]) == ["x=5", "y=5"]
    assert vote_keys(["0.333333", r"\frac{1}{3}"]) == [r"\frac{1}{3}"] * 2


@pytest.mark.parametrize("empty", [None, "", " $ $ ", r"\boxed{}"])
def test_nothing_has_no_vote(empty: str | None, no_algebra: None) -> None:
    assert vote_keys([empty]) == [None]


def test_votes_on_choices(no_algebra: None) -> None:
    assert vote_keys(["(B)", "12"], kind="choice") == ["B", None]


@pytest.mark.parametrize("wrong", [{"kind": "maths"}, {"form": "raw"}, {"timeout": 0}])
def test_wrong_arguments_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        answers_equal("x+1", "1+x", **wrong)


@pytest.mark.parametrize(
    ("gold", "prediction", "equal"),
    [
        ("x=1,y=2", "x=2,y=1", False),
        ("a=3, b=4", "b=4, a=3", True),
        ("x=1,y=2", "(1,2)", True),
        ("x=1,y=2", "(x=1,y=2)", True),
        ("x=1,x=2", "2,1", True),
        (r"16\text{ cats}, 3\text{ dogs}", r"3\text{ cats}, 16\text{ dogs}", False),
    ],
)
def test_the_parts_of_two_lists_are_not_equal_by_their_values_alone(
    gold: str, prediction: str, equal: bool
) -> None:
    assert answers_equal(gold, prediction) is answers_equal(prediction, gold) is equal
    first, second = vote_keys([gold, prediction])
    assert (first == second) is equal


@pytest.mark.parametrize(
    ("gold", "prediction", "equal"),
    [
        (r"8:45\text{ p.m.}", "8:45 PM", True),
        (r"10:15\text{ AM}", "10:15 am", True),
        (r"6\text{ p.m.}", "6PM", True),
        ("6 AM", "6 PM", False),
        (r"\frac{3}{4}\text{ cup}", "0.75", True),
        ("3abc", "3bca", True),
        (r"\text{FF}_{16}", "255", True),
        ("AB_{16}", "BA_{16}", False),
        ("1500", "1.5 x 10^3", True),
        ("2x10^3", "2x10^4", False),
        (r"2\sqrt{3}", r"2\sqrt{3}\approx 3.46", True),
        (r"2\sqrt{3}", r"2\sqrt{2}\approx 3.46", False),
        (r"\pi", r"\pi\approx 3.14", True),
        (r"16\pi", r"16\pi\text{ cm}^2\approx 50.3\text{ cm}^2", True),
        ("(1,2)", r"(1,2)\approx 3", False),
        ("3.14", r"\pi\approx 3.14", False),
        (r"x\approx 3.5", "3.5", True),
        ("5", r"\color{red}{5}", True),
        (r"\frac{1}{2}", r"\frac{\textcolor{blue}{1}}{2}", True),
        ("5", r"\underline{6}", False),
        ("x+5", r"x+\underline{5}", True),
    ],
)
def test_clock_times_short_nouns_hexadecimal_letters_roundings_and_colours(
    gold: str, prediction: str, equal: bool
) -> None:
    assert answers_equal(gold, prediction) is equal
