"""Verdicts that stand before the label of their step; and such as only seem to. Chains as in
tests/support/verdict_chains.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.verdict_chains import BOXES, chain_of, labels_of


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{+}\nfor Step 1\n{-}\nfor Step 2", "10"),
        ("{+}\nfor Step 2\n\n{-}\nfor Step 1", "00"),
        ("{-}\nfor Step 2", "?0"),
        ("{+}\n— Step 1\n{-}\n— Step 2", "10"),
        ("{-}\n— Step 2", "?0"),
        ("{-}\n– Step 2", "?0"),
        ("{-}\n-> Step 2", "?0"),
        ("{-}\n(Step 2)", "?0"),
        ("{-} — Step 2", "?0"),
        ("{+} → Step 1\n{-} → Step 2", "10"),
        ("{+} Step 1: text\n{-} Step 2: text", "10"),
        ("{+}: Step 1\n{-}: Step 2", "10"),
        ("- {+} Step 1: text\n- {-} Step 2: text", "10"),
        ("* {+} **Step 1**\n* {-} **Step 2**", "10"),
        ("{+}\nStep 1: text\n{-}\nStep 2: text", "10"),
        ("{+}\n\nStep 1: text\n\n{-}\n\nStep 2: text", "10"),
        ("{+}\nStep 1: text\n\n{+}\nStep 2: text by Step 1.\nMore.\n\n{-}\nStep 3: text", "110"),
        ("Verdict: {+}\nStep 1: text\n\nVerdict: {-}\nStep 2: text", "10"),
        ("**Verdict:** {+}\n**Step 1:** text\n\n**Verdict:** {-}\n**Step 2:** text", "10"),
        ("$${+}$$\nStep 1: text\n\n$${-}$$\nStep 2: text", "10"),
        ("\\[{+}\\]\n### Step 1\ntext\n\n\\[{-}\\]\n### Step 2\ntext", "10"),
        ("{+}\n1. text\n{-}\n2. text", "10"),
        ("\\boxed{正确}\n第一步：文\n\\boxed{错误}\n第二步：文", "10"),
        ("{+}\nStep 1: text\n{-}\nStep 2: text\n\nSo the whole solution is {-}.", "10"),
        ("{+} Step 1; {-} Step 2", "10"),
        ("{+} // Step 1\n{-} // Step 2", "10"),
        ("Answer: {+}\nStep 1: x\n\nAnswer: {-}\nStep 2: y", "10"),
        ("> {+}\n> Step 1: x\n>\n> {-}\n> Step 2: y", "10"),
        ("{+}\n(for step 1)\n{-}\n(for step 2)", "10"),
        ("The verdict is {+}\nfor Step 1, and {-}\nfor Step 2.", "10"),
        ("{+} Step 1, {-} Step 2", "10"),
        ("{+}\nStep 1: text", "1?"),
        ("{-}\nStep 2: text\n{+}\nStep 1: text", "10"),
        ("{+} is my verdict for Step 1.\n{-} is my verdict for Step 2.", "10"),
        ("{+}\nis my verdict for Step 1.\n{-}\nis my verdict for Step 2.", "10"),
        ("<+->\n\nLet me double check\n\n{-}\nStep 1: text\n{+}\nStep 2: text", "00"),
        ("{+}\nStep 1: text\n{-}\nStep 2: text\n\nLet me double check\n\n<++>", "11"),
    ],
)
def test_a_verdict_before_the_label_of_its_step(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("First step. {+}\nStep 2: b\n{-}", "10"),
        ("{+}\nStep 2: b\n{-}", "10"),
        ("{+}\n\nStep 2: b", "1?"),  # cut
        ("I end each step with {+}.\n\nStep 1: text {+}\n\nStep 2: text", "1?"),
        ("Final verdict: {-}\n\nStep 1: text\n{+}\n\nStep 2: te", "1?"),
        ("Step 1: text\n{+}\nStep 2: text\n{-}", "10"),
        ("Step 1\ntext\n{+}\n— Step 2\ntext\n{-}", "10"),
        ("– Step 1\ntext\n{+}\n– Step 2\ntext\n{-}", "10"),
        ("(Step 1)\nok\n{+}\n(Step 2)\nno\n{-}", "10"),
        ("For Step 1,\nok.\n{+}\nFor Step 2,\nno.\n{-}", "10"),
        ("Step 1 ok. {+}\nfor step 2, we see that it fails. {-}", "10"),
        ("Step 1: a {+} Step 2: b {-}", "10"),
        ("{+} Step 1 is fine. {-}\nStep 2: b {-}", "00"),
    ],
)
def test_what_only_looks_like_it(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


FORMS = [
    "{b}\nStep {}: text",
    "{b} Step {}: text",
    "{b}\nfor Step {}",
    "{b}\n— Step {}",
    "Verdict: {b}\nStep {}: text of two lines,\nas by Step 1.",
    "- {b}: step {}",
]


@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=8), st.sampled_from(FORMS), st.sampled_from(["\n", "\n\n"])
)
def test_made_chains_with_verdicts_first(verdicts, form, separator):
    parts = (
        form.replace("{b}", BOXES["-+"[label]]).replace("{}", str(k)) for k, label in enumerate(verdicts, start=1)
    )
    first = verdicts.index(0) if 0 in verdicts else len(verdicts)
    expected = "".join(str(int(step < first)) for step in range(len(verdicts)))
    assert labels_of(separator.join(parts), len(verdicts)) == expected
