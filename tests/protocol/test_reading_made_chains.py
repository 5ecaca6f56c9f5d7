"""Chains that are made of random verdicts, labels, critiques and endings are read as they were made."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkprm_jax.protocol.reading import read_chain

BOXES = {"+": "\\boxed{correct}", "-": "\\boxed{incorrect}"}

NAMES = [
    "Step {}:",
    "**Step {}:**",
    "### Step {}",
    "[Step {}]",
    "Step {}/{n}:",
    "Step {} of {n}:",
    "Step #{} -",
    "Moving on to Step {}.",
    "Now, let's look at step {}.",
    "For Step {}, we check the arithmetic.",
    "Paragraph {}:",
    "Step {}：",
    "步骤 {}：",
    "第{}步：",
    "- **Step {}**:",
]
CRITIQUES = [
    "It adds 3 and 4.",
    "By Step 1 this is 7. It follows from Step 1.",
    "Critique: 3.5 + 1 = 4.5, as in Step 1 (see Step 2).",
    "1. First add\n2. Then halve\n\nSo 3. It matches.",
    "$$\n\\boxed{12}\n$$",
    "计算 3*4=12。",
    "Hmm, wait. Let me check: 3 + 4 = 7.",
]
ENDINGS = [
    "The step is {}",
    "So the step is {}.",
    "**Verdict:** {}",
    "\\({}\\)",
    "{}",
    "Conclusion: {}",
    "因此，这一步是{}。",
]
WORDS = {
    1: [
        "\\boxed{correct}",
        "\\boxed{\\text{Correct}}",
        "\\boxed{\\textcolor{green}{correct}}",
        "\\boxed{正确}",
        "\\boxed{correct.}",
    ],
    0: [
        "\\boxed{incorrect}",
        "\\boxed{\\textbf{incorrect}}",
        "\\boxed{not correct}",
        "\\boxed{错误}",
        "\\fbox{incorrect}",
    ],
}


@st.composite
def made_chains(draw):
    """(a chain of up to three rounds, its labels as they must be read): each round has a layout of its own."""
    count = draw(st.integers(1, 6))
    last: dict[int, int] = {}
    text = "Let's verify step by step:\n\n"
    for number in range(draw(st.integers(1, 3))):
        text += ["", "\n\nLet me double check\n\n", "\n\nLet's verify again\n\n"][number]
        name = draw(st.sampled_from(NAMES))
        for step in draw(st.permutations(range(1, count + 1))) if draw(st.booleans()) else range(1, count + 1):
            label = draw(st.integers(0, 1))
            box = draw(st.sampled_from(WORDS[label]))
            ending = draw(st.sampled_from(ENDINGS)).replace("{}", box)
            heading = name.replace("{}", str(step)).replace("{n}", str(count))
            text += f"{heading} {draw(st.sampled_from(CRITIQUES))}\n\n{ending}\n\n"
            last[step] = label
    expected = [last[step] for step in range(1, count + 1)]
    first = expected.index(0) if 0 in expected else count
    return text, [int(step < first) for step in range(count)]


@given(made_chains())
@settings(max_examples=150, deadline=None)
def test_made_chains_are_read_as_they_were_made(made):
    chain, labels = made
    read = read_chain(chain, len(labels))
    assert list(read.labels) == labels
    assert all(read.judged)


ONE_LINERS = [
    "Step {} is {b}",
    "step {}: {b}",
    "Step {} -> {b}",
    "step {} {b}",
    "the verdict on step {} is {b}",
    "{}) {b}",
]


@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=8),
    st.sampled_from(ONE_LINERS),
    st.sampled_from(["; ", ", ", ". "]),
)
def test_made_lines_are_read_as_they_were_made(verdicts, form, separator):
    parts = (
        form.replace("{b}", BOXES["-+"[label]]).replace("{}", str(k)) for k, label in enumerate(verdicts, start=1)
    )
    first = verdicts.index(0) if 0 in verdicts else len(verdicts)
    expected = [int(step < first) for step in range(len(verdicts))]
    assert list(read_chain(separator.join(parts), len(verdicts)).labels) == expected


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{correct} ",
        "\\boxed{incorrect {",
        "from Step 1 ",
        "from Step 1. ",
        "Step 1 \\boxed{correct} ",
        "In Step 1 we see, and Step 2 is \\boxed{incorrect}\n",
        "| 1 | \\boxed{correct} |\n",
        "| 1 ",
        "1. \\boxed{correct} ",
        "Steps 1, 2, 3 and 4 ",
        "第一步",
        "let me ",
        "(",
    ],
)
def test_time_is_linear_in_what_names_and_judges(piece):
    times = []
    for size in (10_000, 40_000):
        start = time.process_time()
        read_chain(piece * (size // len(piece)), 50)
        times.append(time.process_time() - start)
    assert times[1] < 0.5  # a megabyte would take 12 s; what is seen is about a second
