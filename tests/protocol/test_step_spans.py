"""Where the steps of a solution stand in its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkprm_jax.protocol.steps import locate_steps, split_solution
from thinkprm_jax.verifier.published import in_order, paragraphs
from thinkprm_jax.verifier.thinkprm import labelled_parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Step 1: a 2\n\nStep 2: 2", ["a 2", "2"]),  # the label has the step's text in it
        ("\ufeff \n## Step 1: x\r\n\r\n## Step 2: y\r\nz\r\n\r\nDone", ["x", "y\r\nz", "Done"]),
        ("above\nStep 1: a\nStep 2: b", ["above\nStep 1: a", "b"]),
        ("**Step 1: a title** said\n\n**Step 2: b** c", ["a title** said", "b** c"]),
        ("1. a\n2. b", ["a", "b"]),
        ("one\n\none\n\none", ["one", "one", "one"]),
        (" \n ", []),
    ],
)
def test_places_are_those_of_the_steps(text: str, parts: list[str]) -> None:
    assert [text[step.start : step.end] for step in locate_steps(text)] == parts


PIECES = ["Step 1: ", "Step 2: ", "\n\n", "\r\n", "\n", "2", "so ", "**", "## ", "1. ", "2. ", " ", "é", "\ufeff"]


@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
def test_places_go_up_and_hold_what_the_step_says(text: str) -> None:
    end = 0
    for step in locate_steps(text):
        assert end <= step.start <= step.end <= len(text)
        end = step.end
        last = step.text.split()[-1] if step.text.split() else ""
        assert last.replace("*", "") in text[step.start : end].replace("*", "")
    assert [step.text for step in locate_steps(text)] == split_solution(text)


def test_the_cuts_of_other_codes_have_places_too() -> None:
    text = "First 1.\n## Step 1: 1\nStep 2: 2 Step 3: ## Step x"
    parts = labelled_parts(text)
    assert [part.text for part in parts] == ["First 1.", "1", "2", "Step x"]
    assert [text[part.start : part.end] for part in parts] == ["First 1.", "1", "2", "## Step x"]
    text = "a\n\n\n\n a \n\nb"
    assert [text[part.start : part.end] for part in in_order(text, paragraphs(text))] == ["a", " a ", "b"]
