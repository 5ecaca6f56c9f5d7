"""Judge prompts, and what is read from a judge's output."""

from __future__ import annotations

import pytest

from thinkprm_jax.protocol.judge_prompts import JudgeAnswer, judge_message, read_judgement

STEPS = ["Step 1: 2 * 3 = 6.", "So {8}."]


INDEX_MESSAGE = """\
The following is a math problem and a solution (split into paragraphs, enclosed with tags and indexed from 0):

[Math Problem]

2 + {problem}?

[Solution]

<paragraph_0>
Step 1: 2 * 3 = 6.
</paragraph_0>

<paragraph_1>
So {8}.
</paragraph_1>

Your task is to review and critique the solution paragraph by paragraph. \
Once you identify an error in a paragraph, return the index of the paragraph where the earliest error occurs. \
Otherwise, return the index of -1 (which typically denotes "not found").

Please put your final answer (i.e., the index) in \\boxed{}."""


def test_index_prompt_is_that_of_processbench():
    assert judge_message("index", "2 + {problem}?", STEPS) == INDEX_MESSAGE


def test_single_prompt_counts_from_zero_and_asks_for_yes_or_no():
    message = judge_message("single", "2?", STEPS)
    assert "<step_0>\n2 * 3 = 6.\n</step_0>\n\n<step_1>\nSo {8}.\n</step_1>" in message
    assert message.endswith("Please put your final answer (i.e., yes/no) in \\boxed{}")


def test_steps_prompt_is_that_of_the_collection():
    assert "Step 1: 2 * 3 = 6.\nStep 2: So {8}.\n" in judge_message("steps", "2?", STEPS)


@pytest.mark.parametrize(
    ("output", "label", "first_error"),
    [
        ("All fine. \\boxed{yes}", 1, -1),
        ("\\boxed{\\text{No}}", 0, None),
        ("\\boxed{ **Yes** }.", 1, -1),
        ("$\\boxed{$yes$}$", 1, -1),
        ("\\boxed{no} ... wait. \\boxed{yes}", 1, -1),
        ("\\boxed{yes} and the answer is \\boxed{8}", None, None),  # the last box is no verdict
        ("The solution is correct: yes.", None, None),
        ("\\boxed{yes/no}", None, None),
        ("\\boxed{yes", None, None),
        ("\\boxed{not sure}", None, None),
        ("", None, None),
    ],
)
def test_single(output, label, first_error):
    found = read_judgement("single", output, 3)
    assert (found.label, found.first_error) == (label, first_error)
    if found.position is not None:
        assert output[found.position :].lower().startswith("yes" if label else "no")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("\\boxed{-1}", JudgeAnswer(1, -1)),
        ("\\boxed{0}", JudgeAnswer(0, 0)),
        ("\\boxed{\\text{2}}", JudgeAnswer(0, 2)),
        ("\\boxed{3}", JudgeAnswer()),  # there is no such paragraph
        ("\\boxed{-2}", JudgeAnswer()),
        ("\\boxed{yes}", JudgeAnswer()),
        ("\\boxed{1.5}", JudgeAnswer()),
        ("index 1", JudgeAnswer()),
    ],
)
def test_index(output, expected):
    assert read_judgement("index", output, 3) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Step 1: \\boxed{correct}\nStep 2: \\boxed{correct}", JudgeAnswer(1, -1)),
        ("Step 1: \\boxed{correct}\nStep 2: \\boxed{incorrect}", JudgeAnswer(0, 1)),
        ("Step 1: \\boxed{correct}", JudgeAnswer()),
        (
            "Step 1: \\boxed{incorrect}</think>Step 1: \\boxed{correct}\nStep 2: \\boxed{correct}",
            JudgeAnswer(1, -1),
        ),
        ("Step 1: \\boxed{correct}\nStep 2: \\boxed{correct}</think>It is fine.", JudgeAnswer(1, -1)),
    ],
)
def test_steps(output, expected):
    assert read_judgement("steps", output, 2) == expected
