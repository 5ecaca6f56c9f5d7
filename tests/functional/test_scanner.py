"""The token-level reading of a chain, against the reading of its text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkprm_jax.arithmetic.task import ArithmeticForm, example
from thinkprm_jax.functional.scanner import CORRECT, INCORRECT, ROUND, STOP, UNCLEAR, ChainScanner, make_scanner
from thinkprm_jax.protocol.prompts import QUESTION
from thinkprm_jax.protocol.reading import read_chain
from thinkprm_jax.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def scanner(mini_tokenizer: Tokenizer) -> ChainScanner:
    return make_scanner([mini_tokenizer.token_bytes(id) for id in range(975)], QUESTION)


def read(scanner: ChainScanner, tokenizer: Tokenizer, text: str) -> tuple[dict[int, int], bool]:
    """(step -> label, whether all is clear), as the device does it."""
    labels: dict[int, int] = {}
    step, waits, clear = 0, False, True
    for event in scanner.scan(tokenizer.encode_plain(text, inner=True)):
        clear = clear and event < UNCLEAR
        event &= UNCLEAR - 1
        if event in (INCORRECT, CORRECT):
            clear = clear and waits
            labels[step], waits = int(event == CORRECT), False
        elif event == ROUND:
            step, waits = 0, False
        elif 0 < event < INCORRECT:
            step, waits = event, True
    return labels, clear


FORM = ArithmeticForm(rounds=1.0, steps_of_rounds=16)


@pytest.mark.parametrize("index", range(12))
def test_chains_of_training_are_clear_and_read_as_on_the_host(scanner, mini_tokenizer, index):
    chain = example(3, index, form=FORM)
    labels, clear = read(scanner, mini_tokenizer, chain.chain + "\n")
    found = read_chain(chain.chain, len(chain.steps))
    judged = len(chain.steps) if found.first_error is None else found.first_error + 1
    assert clear
    assert [labels.get(step + 1) for step in range(judged)] == list(found.labels[:judged])


GOOD = [
    *("\nStep 1: 3 + 4 = 7. ", "\nStep 2: 7 * 2 = 14. ", "\n\nStep 3: so 14.\n"),
    *("The step is \\boxed{correct}\n", "The step is \\boxed{incorrect}\n", "\nThe step is \\boxed{correct}\n"),
    *("fine. The step is \\boxed{correct}\n", "\nStep 1: no. The step is \\boxed{incorrect}\n"),
    *("\nStep 2: ok. The step is \\boxed{correct}\n", "\nLet me double check.\n", "The step says 7. "),
]
ODD = [
    *("\n", "\n\n", " ", ". ", "Did I miss something?", "this step is right. ", "step two", "\\boxed{7}", "if "),
    *("\\boxed{\\text{correct}}", "as in step 1", "all steps are", "in step 2,", "The step", "the rest is fine. "),
    *("everything else ", "Not quite. ", "Overall, ", "The solution is right. ", "1. ", "2. ", "or ", "not "),
    *("so the step is \\boxed{correct}\n", "The step is \\boxed{incorrect} or", "It is \\boxed{correct}. "),
]
PIECES = st.one_of(*(st.sampled_from(GOOD) for _ in range(5)), st.sampled_from(ODD))


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(PIECES, max_size=14), num_steps=st.integers(1, 3))
def test_a_clear_chain_says_what_the_host_reads(scanner, mini_tokenizer, pieces, num_steps):
    text = "".join(pieces)
    labels, clear = read(scanner, mini_tokenizer, text)
    if clear:
        found = read_chain(text, num_steps)
        ours = [labels.get(step + 1) for step in range(num_steps)]
        judged = num_steps if 0 not in ours else ours.index(0) + 1
        assert (
            ours[:judged]
            == [label if known else None for label, known in zip(found.labels, found.judged, strict=True)][:judged]
        )


@pytest.mark.parametrize(
    "text",
    ["As in step 1, it holds.\n", "The step is \\boxed{\\text{correct}}\n", "So \\boxed{correct}\n", "all steps\n",
     "The step is \\boxed{correct} or not\n", "步骤一\n", "the first step is\n", "Step 100: x\n"],
)  # fmt: skip
def test_what_the_host_might_read_otherwise_is_unclear(scanner, mini_tokenizer, text):
    assert not read(scanner, mini_tokenizer, text)[1]


@pytest.mark.parametrize("text", [QUESTION, f"well. {QUESTION}", f"Is the {QUESTION}"])
def test_the_question_ends_a_chain_in_whatever_tokens(scanner, mini_tokenizer, text):
    whole = scanner.scan(mini_tokenizer.encode_plain(text, inner=True))
    bytewise = scanner.scan(mini_tokenizer.token_id(chr(byte)) for byte in QUESTION.replace(" ", "").encode())
    assert whole[-1] == STOP
    assert STOP not in whole[:-1]
    assert STOP not in bytewise
