"""Reading verdicts: tolerant of every shape a chain takes, never a wrong length."""

import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkprm_jax.protocol.reading import contradicts, find_verdicts, read_chain

GOOD, BAD = "The step is \\boxed{correct}", "The step is \\boxed{incorrect}"


@pytest.mark.parametrize(
    ("score", "labels", "expected"),
    [
        (0.9, (1, 1), False),
        (0.9, (1, 0), True),
        (0.1, (1, 0), False),
        (0.1, (1, 1), True),
        (0.5, (1, 1), False),
        (0.5, (0,), False),
        (None, (1,), None),
        (0.9, (), None),
    ],
)
def test_a_score_that_contradicts_the_labels(score, labels, expected):
    assert contradicts(score, labels) is expected


def labels(chain, num_steps):
    return read_chain(chain, num_steps).labels


def chain_of(*verdicts):
    parts = (f"Step {i}: restated\n\nCritique.\n\n{v}" for i, v in enumerate(verdicts, start=1))
    return "Let's verify step by step:\n\n" + "\n\n".join(parts)


def test_the_plain_layout():
    chain = chain_of(GOOD, GOOD, BAD)
    result = read_chain(chain, 5)
    assert result.labels == (1, 1, 0, 0, 0)
    assert result.judged == (True, True, True, False, False)
    assert result.first_error == 2
    assert result.complete
    words = [chain[at:].split("}")[0] for at in result.positions if at is not None]
    assert words == ["correct", "correct", "incorrect"]
    assert result.positions[3:] == (None, None)


def test_all_correct_and_unfinished():
    assert read_chain(chain_of(GOOD, GOOD), 2).complete
    result = read_chain(chain_of(GOOD), 3)
    assert result.labels == (1, None, None)
    assert (result.first_error, result.complete) == (None, False)


def test_a_gap_before_the_error_is_not_complete():
    result = read_chain(f"Step 1: a\n{GOOD}\nStep 2: b\nhm\nStep 3: c\n{BAD}\nStep 4: d\n{GOOD}", 5)
    assert result.labels == (1, None, 0, 0, 0)
    assert result.judged == (True, False, True, True, False)
    assert (result.first_error, result.complete) == (2, False)


@pytest.mark.parametrize(
    ("box", "label"),
    [
        ("\\boxed{correct}", 1),
        ("\\boxed{\\text{correct}}", 1),
        ("\\boxed{ Correct }", 1),
        ("\\boxed {INCORRECT}", 0),
        ("\\(\\boxed{\\textbf{ incorrect }}\\)", 0),
        ("\\boxed{\\text{\\textbf{Incorrect}}}", 0),
        ("\\boxed{\\bf correct}", 1),
        ("$\\boxed{\\mathrm{correct}}$", 1),
        ("\\boxed{**correct**}", 1),
        ("\\boxed{correct.}", 1),
        ("\\boxed{\\ incorrect}", 0),
        ("\\boxed{incorrect", 0),  # cut right after the word
        ("\\boxed{incor", None),
        ("\\boxed{", None),
        ("\\boxed{correct/incorrect}", None),
        ("\\boxed{not correct}", 0),
        ("\\boxed{correctly}", None),
        ("\\boxed{42}", None),
        ("correct", None),
    ],
)
def test_boxes(box, label):
    assert labels(f"Step 1: a\n{box}", 1) == (label,)


@pytest.mark.parametrize(
    "heading",
    [
        "Step 2:",
        "**Step 2:** the text",
        "**Step 2**",
        "**Step 2: Square both sides**",
        "### Step 2: the text",
        "#### **Step 2**",
        "Step 2 - the text",
        "Step 2 – the text",
        "Step 2. The text",
        "Step 2",
        "- **Step 2:** the text",
        "2. **Step 2:** the text",
        "> Step 2:",
        "step 2:",
        "STEP 2:",
        "Step #2:",
        "Step 2 (squaring):",
        "Now, step 2: the text",
        "Let's re-check Step 2:",
        "**Verdict for Step 2:**",
        "Step 2:\r",
    ],
)
def test_headings(heading):
    assert labels(f"{heading}\nCritique.\n{GOOD}", 3) == (None, 1, None)


@pytest.mark.parametrize(
    "mention",
    [
        "as in Step 1 we see it, so",
        "This follows from Step 1: it holds.",
        "Step 1 gave x = 2 and so",
        "Compare (Step 3: later), so",
        "Stepping 1: no",
    ],
)
def test_mentions_are_no_headings(mention):
    chain = f"Step 1: a\n{GOOD}\nStep 2: b\n{mention}\n{BAD}"
    assert labels(chain, 3) == (1, 0, 0)


def test_several_steps_under_one_heading():
    assert labels(f"Steps 1-3: fine\n{GOOD}\nStep 4: d\n{BAD}", 5) == (1, 1, 1, 0, 0)
    assert labels(f"Steps 1 and 2:\n{GOOD}", 3) == (1, 1, None)
    assert labels(f"Steps 3-1:\n{GOOD}", 3) == (None, None, None)


def test_the_last_verdict_of_a_step_counts():
    assert labels(f"Step 1: a\n{GOOD}\nWait, no.\n{BAD}", 2) == (0, 0)
    again = chain_of(GOOD, BAD) + "\n\nLet me double check\n\n" + chain_of(GOOD, GOOD, GOOD)
    assert labels(again, 3) == (1, 1, 1)
    stricter = chain_of(GOOD, GOOD, GOOD) + "\n\nLet's verify again\n\n" + chain_of(GOOD, BAD)
    assert labels(stricter, 3) == (1, 0, 0)


def test_a_round_that_was_cut_changes_only_what_it_reached():
    chain = chain_of(GOOD, BAD) + "\n\nDid I miss something?\n\nStep 1: again\nhm"
    assert labels(chain, 3) == (1, 0, 0)


def test_summaries():
    summary = "\n\nSummary\n- Step 1: \\boxed{correct}\n- Step 2: \\boxed{incorrect}"
    assert labels(chain_of(GOOD, BAD) + summary, 4) == (1, 0, 0, 0)
    sentences = "\n\nStep 1 is \\boxed{correct}\nStep 2 is \\boxed{incorrect}"
    assert labels(chain_of(GOOD, BAD) + sentences, 2) == (1, 0)
    other_box = "\n\nFinal answer: \\[ \\boxed{12} \\]"
    assert labels(chain_of(GOOD, GOOD) + other_box, 2) == (1, 1)


def test_without_headings_order_decides():
    assert labels(f"First. {GOOD} Second. {BAD}", 4) == (1, 0, 0, 0)
    assert labels(f"{GOOD} {GOOD} {GOOD}", 2) == (1, 1)
    assert labels(f"{GOOD} {BAD} again {GOOD} {GOOD}", 2) == (1, 1)  # the last full repetition


def test_verdicts_before_the_first_heading():
    assert labels(f"First step. {GOOD}\nStep 2: b\n{BAD}", 2) == (1, 0)
    echo = "I end each step with \\boxed{correct} or \\boxed{incorrect}.\n\n"
    assert labels(echo + chain_of(GOOD), 3) == (1, None, None)


def test_a_solution_restated_under_headings_and_judged_later():
    restated = "Step 1: a\nStep 2: b\nStep 3: c\n\n"
    assert labels(restated + f"{GOOD}\n{GOOD}\n{BAD}", 3) == (1, 1, 0)


def test_steps_that_do_not_exist_are_ignored():
    assert labels(chain_of(GOOD, GOOD, BAD), 2) == (1, 1)
    assert labels(f"Step 0: a\n{BAD}\nStep 99999999: b\n{BAD}\nStep 1: c\n{GOOD}", 1) == (1,)


def test_no_steps():
    for count in (0, -1):
        result = read_chain(chain_of(GOOD), count)
        assert result.labels == result.judged == result.positions == ()


PIECES = st.lists(
    st.one_of(
        st.sampled_from([GOOD, BAD, "\\boxed{", "\\boxed{\\text{correct}}", "correct}", "\n", "**", "## ", " "]),
        st.integers(0, 12).map(lambda i: f"\nStep {i}: "),
        st.integers(0, 12).map(lambda i: f"Steps {i}-{12 - i}: "),
        st.text(max_size=5),
    ),
    max_size=30,
).map("".join)


@given(PIECES, st.integers(0, 8))
@settings(max_examples=400, deadline=None)
def test_every_string_is_read(chain, num_steps):
    result = read_chain(chain, num_steps)
    assert len(result.labels) == len(result.judged) == len(result.positions) == num_steps
    for label, judged, position in zip(result.labels, result.judged, result.positions, strict=True):
        assert label in (0, 1, None)
        assert judged == (position is not None)
        if judged:
            assert chain[position:].lower().startswith(("correct", "incorrect"))
    if result.first_error is None:
        assert 0 not in result.labels
    else:
        assert set(result.labels[result.first_error :]) == {0}
        assert 0 not in result.labels[: result.first_error]
    assert result.complete == (None not in result.labels)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.data())
def test_a_cut_chain_never_invents_a_verdict(verdicts, data):
    chain = chain_of(*(GOOD if verdict else BAD for verdict in verdicts))
    whole = read_chain(chain, len(verdicts))
    part = read_chain(chain[: data.draw(st.integers(0, len(chain)))], len(verdicts))
    for judged, position, expected in zip(part.judged, part.positions, whole.positions, strict=True):
        assert not judged or position == expected


@pytest.mark.parametrize(
    "piece",
    ["\\boxed{ ", "\\boxed{\\text{", " ", "> ", "#", "*", "\nStep 1 ", "\n1. ", "\\ ", "-1"],
)
def test_time_is_linear(piece):
    chain = piece * (200_000 // len(piece))
    gc.disable()  # it would look through what all tests before have left, for seconds
    try:
        start = time.thread_time()  # not the wall, which stands still where a machine does other work
        read_chain(chain, 1000)
        assert time.thread_time() - start < 2
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("box", "label"),
    [
        ("\\boxed{correct}", 1),
        ("\\boxed{\\text{incorrect}}", 0),
        ("\\boxed{ \\textbf{ Correct } }", 1),
        ("\\boxed{\\bf incorrect}", 0),
    ],
)
def test_verdicts_are_found_with_the_braces_that_close_them(box, label):
    text = f"{{a {box}}} b {box}"
    assert [(text[start:end], found) for start, end, found in find_verdicts(text)] == [(box, label)] * 2


def test_a_box_that_the_chain_does_not_close():
    assert find_verdicts("a \\boxed{correct") == [(2, 16, 1)]
    assert find_verdicts("a \\boxed{\\text{correct}") == [(2, 23, 1)]
    assert find_verdicts("\\boxed{12} \\boxed{correct/incorrect}") == []
