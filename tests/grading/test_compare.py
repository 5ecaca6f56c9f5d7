"""Equality of answers and their canonical forms, with math-verify's algebra behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkprm_jax.errors import UserError
from thinkprm_jax.grading import compare as answers
from thinkprm_jax.grading import pool as answers_pool
from thinkprm_jax.grading.compare import (
    MathOptions,
    answers_equal,
    canonical_answer,
    canonical_many,
    equal_many,
)


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
        ("x+1", "1+x", True),
        ("x+1", "x+2", False),
        (r"3\sqrt{13}", r"\sqrt{117}", True),
        ("(x-1)(x+1)", "x^2-1", True),
        (r"\{1,2\}", r"\{2,1\}", True),
        ("(1,2)", "(2,1)", False),
        ("[0,9)", "[0,1)", False),
        (r"(-\infty,3]\cup[5,\infty)", r"[5,\infty)\cup(-\infty,3]", True),
        ("x=5", "y=5", False),
        ("y=2x+1", "2x-y=-1", True),
        ("50%", "0.5", True),
        ("12%", "12", True),
        (r"3 \pm \sqrt{2}", r"\{3+\sqrt{2}, 3-\sqrt{2}\}", True),
        (r"\frac{\sqrt{2}}{2} \text{ metres}", r"\frac{1}{\sqrt{2}}", True),
    ],
)
def test_bare_answers(gold: str, prediction: str, equal: bool) -> None:
    assert answers_equal(gold, prediction) is equal


@pytest.mark.parametrize(
    ("gold", "prediction", "equal"),
    [
        (r"so $x=\boxed{\frac{1}{2}}$.", "The answer is 1/2.", True),
        ("$9$", "Add 4 and 5. Final Answer: The final answer is $9$. I hope it is correct.", True),
        ("$9$", "Add 4 and 5. Final Answer: The final answer is $8$. I hope it is correct.", False),
        (r"\boxed{x+1}", r"we get $\boxed{1+x}$", True),
        ("$[0,1)$", "the interval is $(0, 1)$", False),
    ],
)
def test_answers_in_texts(gold: str, prediction: str, equal: bool) -> None:
    assert answers_equal(gold, prediction, form="text") is equal


@pytest.mark.parametrize("precision", [3, 4])
def test_precision_reaches_the_algebra(precision: int) -> None:
    options = MathOptions(precision=precision)
    assert answers_equal(r"\sqrt{2}", "1.4144", options=options) is (precision == 3)


def test_strict_reaches_the_algebra() -> None:
    assert not answers_equal("f(x)", "f(y)", options=MathOptions(strict=True))
    assert answers_equal("f(x)", "f(y)", options=MathOptions(strict=False))


def test_allow_set_relation_comp_reaches_the_algebra() -> None:
    assert not answers_equal(r"x\in[-2,7]", r"-2\le x\le 7")
    options = MathOptions(allow_set_relation_comp=True)
    assert answers_equal(r"x\in[-2,7]", r"-2\le x\le 7", options=options)


def test_match_types_reach_the_algebra() -> None:
    text = "so it comes to 3 * 3 in all"
    assert answers_equal("$9$", text, options=MathOptions(match_types=("latex", "expr")), form="text")
    assert not answers_equal("$9$", text, options=MathOptions(match_types=("latex",)), form="text")


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_no_answer_equals_nothing(empty: str | None, no_algebra: None) -> None:
    assert not answers_equal(empty, empty)
    assert not answers_equal("5", empty)
    assert not answers_equal(empty, "5")


def test_plain_numbers_and_words_need_no_algebra(no_algebra: None) -> None:
    pairs = [("1,000", "1000"), (r"\frac{14}{3}", "14/3"), ("4", "11"), ("Evelyn", r"\text{Evelyn}")]
    assert equal_many(pairs) == [True, True, False, True]
    assert canonical_many(["0.50", r"\text{Evelyn}"]) == [r"\frac{1}{2}", "evelyn"]


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


def test_a_pair_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Pool:
        def run_many(self, task: str, arguments: list, limit: float) -> list[bool]:
            asked.extend(arguments)
            return [True] * len(arguments)

    monkeypatch.setattr(answers, "shared_pool", Pool)
    monkeypatch.setattr(answers, "_equalities", answers._Memory())
    assert equal_many([("a+b", "b+a")] * 3) + equal_many([("a+b", "b+a")]) == [True] * 4
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
def test_equal_answers_share_their_canonical_form(group: list[str]) -> None:
    assert len(set(canonical_many(group))) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [("(1,2)", "(2,1)"), ("[0,1)", "(0,1)"), ("Evelyn", "Angela"), ("x+1", "x-1"), ("1/3", "0.333")],
)
def test_other_answers_have_other_forms(first: str, second: str) -> None:
    assert canonical_answer(first) != canonical_answer(second)


def test_what_cannot_be_parsed_keeps_its_spelling() -> None:
    assert canonical_answer(r"\frac{1}{") == r"\frac{1}{"


@pytest.mark.parametrize("empty", [None, "", " $ $ ", r"\boxed{}"])
def test_nothing_has_no_canonical_form(empty: str | None, no_algebra: None) -> None:
    assert canonical_answer(empty) is None


def test_canonical_choices(no_algebra: None) -> None:
    assert canonical_many(["(B)", "12"], kind="choice") == ["B", None]


PIECES = [
    "\\frac",
    "{",
    "}",
    "\\sqrt",
    "x",
    "1",
    "(",
    ")",
    ",",
    "\\cup",
    "=",
    "^",
    "\\text{a}",
    "[",
    "\\",
    "\\%",
    " ",
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from(["x+1", r"\{1,2\}", "[0,1)"]))
def test_no_text_raises(prediction: str, gold: str) -> None:
    assert answers_equal(gold, prediction) in (True, False)
    canonical_answer(prediction)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"precison": 4}, "precison"),
        ({"precision": "4"}, "precision"),
        ({"precision": True}, "precision"),
        ({"match_types": ["tex"]}, "match_types"),
        ({"match_types": []}, "match_types"),
    ],
)
def test_wrong_options_are_named_with_their_place(options: dict, named: str) -> None:
    with pytest.raises(UserError, match=rf"pairs.jsonl:3: options: {named}"):
        MathOptions.of(options, "pairs.jsonl:3")


def test_options_of_a_file() -> None:
    assert MathOptions.of({"match_types": ["latex"], "precision": 4}, "x") == MathOptions(("latex",), 4)
    assert MathOptions.of(None, "x") == MathOptions()


@pytest.mark.parametrize("wrong", [{"kind": "maths"}, {"form": "raw"}, {"timeout": 0}])
def test_wrong_arguments_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        answers_equal("x+1", "1+x", **wrong)
