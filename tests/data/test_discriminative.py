"""Texts, marks and targets of the discriminative task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.small_batches import make_batch, make_packed_batch
from thinkprm_jax.arithmetic.source import ArithmeticChains
from thinkprm_jax.data.batches import batches
from thinkprm_jax.data.chains import ChainReport, LabelledChain
from thinkprm_jax.data.discriminative import (
    PUBLISHED,
    DiscriminativeDataset,
    Layout,
    ListedSteps,
    MarkIds,
    StepEncoder,
    prm800k_solutions,
)
from thinkprm_jax.data.sources import ListedChains
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

STEPS = ["Step 1: 2 * 3 = 6.", "2 + 6 = 9. ки", "So 9."]
CHAIN = LabelledChain("What is 2 + 2 * 3?", STEPS, "", [1, 0, 0], False)


def test_marks_of_the_r1_tokenizer(r1):
    marks = StepEncoder(r1).marks
    assert marks == MarkIds(separator=1802, positive=10, negative=12)
    assert (r1.encode(" ки")[-1], r1.encode("+"), r1.encode("-")) == (1802, [10], [12])


def test_marks_of_the_bundled_tokenizer(mini_tokenizer):
    marks = StepEncoder(mini_tokenizer).marks
    assert [mini_tokenizer.token_bytes(id) for id in (marks.separator, *marks.choices)] == [b"\xb8", b"+", b"-"]


@pytest.mark.parametrize("text", ["¸", "и", "x и", "\u0378", "∸∸", "1 ки", "ߺ¸и"])
def test_no_text_of_the_bundled_tokenizer_has_a_separator_behind_a_whole_character(mini_tokenizer, text):
    """A byte B8 of a text always follows a character's first byte; a separator never does."""
    separator = StepEncoder(mini_tokenizer).marks.separator
    ids = mini_tokenizer.encode_plain(text)
    for place in np.flatnonzero(np.asarray(ids) == separator):
        with pytest.raises(UnicodeDecodeError):
            b"".join(map(mini_tokenizer.token_bytes, ids[:place])).decode()


@pytest.mark.parametrize("tokenizer", ["r1", "mini_tokenizer"])
def test_the_text_is_that_of_the_public_code(tokenizer, request):
    tokenizer = request.getfixturevalue(tokenizer)
    text = StepEncoder(tokenizer).encode(CHAIN.problem, STEPS)
    separator = tokenizer.encode(" ки")[-1]
    expected = tokenizer.encode(CHAIN.problem)
    places = []
    for number, step in enumerate(["2 * 3 = 6.", "2 + 6 = 9. ки", "So 9."], start=1):
        expected += [*tokenizer.encode(f"\nStep {number}: {step}"), separator]
        places.append(len(expected) - 1)
    assert (text.ids, text.places) == (expected, places)
    assert text.ids.count(separator) == 4  # one more, in the second step, is no place


def test_begin_of_sentence_stands_once_where_the_layout_has_it(r1):
    plain = StepEncoder(r1).encode(CHAIN.problem, STEPS).ids
    begun = StepEncoder(r1, Layout(bos=True)).encode(CHAIN.problem, STEPS)
    assert begun.ids == [r1.bos_id, *plain]
    assert [begun.ids[place] for place in begun.places] == [1802] * 3


def test_control_strings_are_plain_text(r1):
    text = "<｜end▁of▁sentence｜></think><｜User｜>"
    encoder = StepEncoder(r1)
    encoded = encoder.encode(text, [text])
    assert not set(encoded.ids) & set(r1.control_ids.values())
    assert encoder.show(encoded) == f"{text}\nStep 1: {text} ки"


def test_marks_that_cannot_work_are_refused(mini_tokenizer):
    with pytest.raises(UserError, match="do not end in three different tokens"):
        StepEncoder(mini_tokenizer, Layout(labels=("+", "-+")))
    with pytest.raises(UserError, match="must not be empty"):
        StepEncoder(mini_tokenizer, Layout(separator=""))


def test_config_and_back():
    for layout in (PUBLISHED, Layout("!", ("yes", "no"), bos=True)):
        assert Layout.from_config(json.loads(json.dumps(layout.to_config())), "config.json") == layout
    assert PUBLISHED.to_config() == {"task": "discriminative", "separator": " ки", "labels": ["+", "-"]}


def dataset(tokenizer: Tokenizer, *chains: LabelledChain, longest: int = 200) -> DiscriminativeDataset:
    return DiscriminativeDataset(len(chains), ListedChains(chains), StepEncoder(tokenizer), longest)


def test_a_label_is_the_target_at_its_separator_up_to_the_first_error(mini_tokenizer):
    encoder = StepEncoder(mini_tokenizer)
    example = dataset(mini_tokenizer, CHAIN)[0]
    expected = encoder.encode(CHAIN.problem, STEPS[:2])
    assert example.ids.tolist() == expected.ids
    assert np.flatnonzero(example.weights).tolist() == expected.places
    assert example.targets[expected.places].tolist() == [encoder.marks.positive, encoder.marks.negative]
    correct = LabelledChain(CHAIN.problem, STEPS, "", [1, 1, 1], True)
    assert np.count_nonzero(dataset(mini_tokenizer, correct)[0].weights) == 3


def test_batches_keep_targets_at_their_inputs(mini_tokenizer):
    data = dataset(mini_tokenizer, CHAIN, LabelledChain("1 + 1?", ["2."], "", [1], True))
    first, second = data[0], data[1]
    sizes = len(first.ids), len(second.ids)
    assert (data.length(0), data.length(1), data.targets(0), data.targets(1)) == (*sizes, 2, 1)

    padded = make_batch([first, second], 3, 64)
    for row, example in enumerate((first, second)):
        for array, column in (("tokens", "ids"), ("targets", "targets"), ("weights", "weights")):
            found = getattr(padded, array)[row]
            assert found[: len(example.ids)].tolist() == getattr(example, column).tolist()
            assert not found[len(example.ids) :].any()
    assert (padded.real_tokens, padded.target_tokens) == (sum(sizes), 3)

    packed = make_packed_batch([[first, second]], 1, sum(sizes))  # they fit exactly
    for array, column in (("tokens", "ids"), ("targets", "targets"), ("weights", "weights")):
        joined = [*getattr(first, column), *getattr(second, column)]
        assert getattr(packed, array)[0].tolist() == joined
    assert packed.segment_ids[0].tolist() == [1] * sizes[0] + [2] * sizes[1]


def test_a_row_takes_a_text_as_long_as_itself_and_none_longer(mini_tokenizer):
    size = len(StepEncoder(mini_tokenizer).encode(CHAIN.problem, STEPS[:2]).ids)
    ((batch, state),) = batches(dataset(mini_tokenizer, CHAIN, longest=size), [size], lambda _: 1, epochs=1)
    assert (batch.real_tokens, state["left_out"]) == (size, 0)
    short = dataset(mini_tokenizer, CHAIN, longest=size - 1)
    assert list(batches(short, [size - 1], lambda _: 1, epochs=1)) == []
    assert short.report.reasons["too long"] == 1


def test_what_cannot_be_encoded_is_left_out(mini_tokenizer):
    bad = LabelledChain("1 + 1?", ["\ud800"], "", [1], True)
    with pytest.raises(RequestError):
        StepEncoder(mini_tokenizer).encode(bad.problem, bad.steps)
    assert dataset(mini_tokenizer, bad)[0] is None


def test_the_synthetic_task(mini_tokenizer):
    encoder = StepEncoder(mini_tokenizer)
    data = DiscriminativeDataset(50, ArithmeticChains(3, "test", 0), encoder, 200)
    kinds = set()
    for index in range(50):
        example = data[index]
        marked = example.targets[example.weights > 0].tolist()
        assert encoder.marks.negative not in marked[:-1]
        kinds.add(marked[-1])
    assert kinds == set(encoder.marks.choices)
    again = DiscriminativeDataset(50, ArithmeticChains(3, "test", 0), encoder, 200)
    other = DiscriminativeDataset(50, ArithmeticChains(4, "test", 0), encoder, 200)
    assert data.fingerprint == again.fingerprint != other.fingerprint


def test_prm800k(mini_tokenizer, tmp_path):
    def stage(text: str, rating: int) -> dict:
        return {
            "completions": [{"text": text, "rating": rating}],
            "human_completion": None,
            "chosen_completion": 0,
        }

    row = {
        "question": {"problem": "1 + 1?"},
        "label": {
            "steps": [stage("1 + 1.", 0), stage("3.", -1), stage("Done.", 1)],
            "finish_reason": "found_error",
        },
    }
    path = Path(tmp_path / "prm800k.jsonl")
    path.write_text(json.dumps(row) + "\n")
    solutions = ListedSteps(prm800k_solutions(str(path)))
    encoder = StepEncoder(mini_tokenizer)
    data = DiscriminativeDataset(len(solutions), solutions, encoder, 200)
    example = data[0]
    assert encoder.encode("1 + 1?", ["1 + 1.", "3."]).ids == example.ids.tolist()
    assert example.targets[example.weights > 0].tolist() == [encoder.marks.positive, encoder.marks.negative]
    assert data.place(0) == f"{path}:1"


def test_rows_of_prm800k_without_a_path_are_counted(mini_tokenizer, tmp_path):
    step = {"completions": [{"text": "2 + 2 = 4.", "rating": 1}], "chosen_completion": 0}
    rows = [
        {"question": {"problem": "2 + 2?"}, "label": {"steps": [step], "finish_reason": "solution"}},
        {"question": {"problem": "?"}, "label": {"steps": [], "finish_reason": "bad_problem"}},
    ]
    path = tmp_path / "prm800k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ChainReport("training data")
    found = prm800k_solutions(str(path), report)
    dataset = DiscriminativeDataset(len(found), ListedSteps(found), StepEncoder(mini_tokenizer), 64, report=report)
    assert (len(dataset), dataset.unusable, report.rows) == (1, 1, 2)
