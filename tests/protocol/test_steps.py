"""Splitting free solution text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkprm_jax.protocol.prompts import strip_step_label
from thinkprm_jax.protocol.steps import split_solution


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1: a = 2\nStep 2: b = 3", ["a = 2", "b = 3"]),
        ("## Step 1: Add\n2 + 2 = 4\n\n## Step 2\nDouble it\n\nSo 8.", ["Add\n2 + 2 = 4", "Double it\n\nSo 8."]),
        ("**Step 1:** a\n\n**Step 2**: b\n**Step 3: Title** c", ["a", "b", "Title c"]),
        ("Step 1. a\nStep 2. b", ["a", "b"]),
        ("step 1 - a\nstep 2 – b", ["a", "b"]),
        ("Step 1: a\r\nStep 2: b\r\n", ["a", "b"]),
        ("Let us see.\n\nStep 1: a\nStep 2: b", ["Let us see.\n\na", "b"]),
        (
            "Step 1: a, by Step 2 below\nStep 3 is no label\nStep 2: b",
            ["a, by Step 2 below\nStep 3 is no label", "b"],
        ),
        ("1. a\n2. b\n3. c", ["a", "b", "c"]),
        ("1) a\n2) b", ["a", "b"]),
        ("We do:\n1. a\n2. b", ["We do:\n\na", "b"]),
        ("**1.** a\n**2.** b", ["a", "b"]),
        ("1. a\n\nmore\n\n2. b\n\nmore\n\nand more", ["a\n\nmore", "b\n\nmore\n\nand more"]),
        ("a\n\nb\n \n\nc", ["a", "b", "c"]),
        ("a\nb", ["a\nb"]),
        ("  one line  ", ["one line"]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_layouts(text, steps):
    assert split_solution(text) == steps


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("We have x = 1.\n3. The rest follows\nfrom symmetry.", 1),  # a number that starts no list
        ("So 2. is out\n\nIt is\n3.5 in all.", 2),
        ("Step 2: a\nStep 3: b", 1),  # does not begin at 1
        ("Let\n1. a = 1\n2. b = 2\n\nThen a + b = 3.\n\nSo a < b.\n\nDone.", 4),  # a list inside
        ("As drawn:\n\n[asy]\ndraw(a);\n\ndraw(b);\n[/asy]\n\nSo x = 2.", 3),
        ("Run\n\n```\na\n\nb\n```\n\nEnd", 3),
    ],
)
def test_what_is_no_boundary(text, count):
    assert len(split_solution(text)) == count


def test_numbers_out_of_order_stay_in_the_step():
    text = "Step 1: a\nStep 2: b\nStep 1: again\nStep 3: c"
    assert split_solution(text) == ["a", "b\nStep 1: again", "c"]


def test_strip_step_label():
    assert strip_step_label("Step 12: x = 1") == "x = 1"
    assert strip_step_label("Step 1:x") == "x"
    assert strip_step_label("Stepping 1: x") == "Stepping 1: x"
    assert strip_step_label("x. Step 1: y") == "x. Step 1: y"


@given(st.text(alphabet="a1 2.)\n#*:Step -", max_size=80))
def test_splitting_keeps_the_text(text):
    steps = split_solution(text)
    assert all(step and step == step.strip() for step in steps)
    assert bool(steps) or not text.replace("*", "").strip() or "1" in text
    assert sum(map(len, steps)) <= len(text) + 2


@given(st.lists(st.text(alphabet="abc xyz=+", min_size=1).filter(str.strip), min_size=1, max_size=9))
def test_labelled_steps_come_back(steps):
    text = "\n".join(f"Step {i}: {step}" for i, step in enumerate(steps, start=1))
    assert split_solution(text) == [step.strip() for step in steps]
