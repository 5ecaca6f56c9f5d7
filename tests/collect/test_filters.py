"""Each filter of a collection, the balance and the target, and the rows that come out."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from thinkprm_jax.checkpoint.huggingface import BUNDLED
from thinkprm_jax.collect.filters import KEPT, Collection, cut_chain
from thinkprm_jax.collect.recipe import Filters, Generated
from thinkprm_jax.data.chains import parse_chain
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.protocol.prompts import training_chain
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

GOOD, BAD = "\\boxed{correct}", "\\boxed{incorrect}"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(BUNDLED["mini"])


def chain(*verdicts: int, note: str = "") -> str:
    """A chain with a verdict for each of the first steps."""
    parts = [f"Step {i}: so{note}. The step is {GOOD if v else BAD}" for i, v in enumerate(verdicts, start=1)]
    return "Let's verify step by step:\n\n" + "\n\n".join(parts)


def generated(labels: list[int], *texts: str, problem: str = "p", finish: str = "stop") -> Generated:
    prefix = Prefix(problem, [f"s{i}" for i in range(len(labels))], labels, "here")
    return Generated(prefix, texts, (7,) * len(texts), (finish,) * len(texts))


def run(tokenizer, *items: Generated, seed: int = 0, **settings):
    """(kept candidates, reasons in the order of the generations)."""
    defaults = {"balance": False, "target": None}
    collection = Collection(Filters(**{**defaults, **settings}), tokenizer, seed)
    for number, item in enumerate(items):
        collection.add(number, item)
    kept, decisions = collection.select()
    return list(kept), [decision.reason for decision in decisions]


@pytest.mark.parametrize(
    ("labels", "text", "reason"),
    [
        ([1, 1], chain(1, 1), KEPT),
        ([1, 0], chain(1, 0), KEPT),
        ([1, 0, 0], chain(1, 0), KEPT),  # as many verdicts as steps up to the first error
        ([1, 0, 0], chain(1, 0, 1), KEPT),  # as many as steps; those behind the first error do not count
        ([1, 0, 0, 0], chain(1, 0, 1), "more verdicts than steps"),
        ([1, 1], chain(1), "steps without a verdict"),
        ([1, 0], chain(1), "steps without a verdict"),
        ([1, 1], chain(1, 1) + f"\n\nSo: {GOOD}", "more verdicts than steps"),
        ([1, 1], chain(1, 1) + "\n\n" + chain(1, 1), "more verdicts than steps"),
        ([1, 1], "It is right. \\boxed{12}", "no verdict"),
        ([1, 1], "", "no verdict"),
        ([1, 1], chain(1, 0), "verdicts differ from the labels"),
        ([1, 0], chain(1, 1), "verdicts differ from the labels"),
        ([1, 0, 0], chain(0), "verdicts differ from the labels"),
    ],
)
def test_the_process_filter(tokenizer, labels, text, reason):
    assert run(tokenizer, generated(labels, text))[1] == [reason]


@pytest.mark.parametrize(
    ("labels", "text", "reason"),
    [
        ([1, 0, 0], chain(0), KEPT),  # the wrong step, the right outcome
        ([1, 0], chain(1, 1), "outcome differs from the label"),
        ([1, 1], chain(1, 0), "outcome differs from the label"),
        ([1, 1], chain(1), "steps without a verdict"),
    ],
)
def test_the_outcome_filter(tokenizer, labels, text, reason):
    assert run(tokenizer, generated(labels, text), labels="outcome")[1] == [reason]


def test_no_filter_looks_at_the_format_alone(tokenizer):
    kept, reasons = run(tokenizer, generated([1, 0], chain(1, 1), chain(0), chain(1)), labels="none")
    assert reasons == [KEPT, KEPT, "steps without a verdict"]
    assert {tuple(item.row.gt_step_labels) for item in kept} == {("+", "+"), ("-",)}  # what the chains say


def test_length_is_that_of_the_cut_chain(tokenizer):
    text = chain(1, 1)
    size = len(tokenizer.encode_plain(text, inner=True))
    longer = text + " and so on" * 50
    assert run(tokenizer, generated([1, 1], longer), max_tokens=size)[1] == [KEPT]
    assert run(tokenizer, generated([1, 1], longer), max_tokens=size - 1)[1] == ["too long"]
    assert run(tokenizer, generated([1, 1], longer))[0][0].tokens == size


def test_duplicates_are_those_of_one_prefix(tokenizer):
    one, two = chain(1, 1), chain(1, 1, note=" it is")
    items = generated([1, 1], one, two, one, one + " bye"), generated([1, 1], one, problem="q")
    assert run(tokenizer, *items)[1] == [KEPT, KEPT, "duplicates", "duplicates", KEPT]


def test_per_prefix_counts_chains_that_passed(tokenizer):
    texts = chain(1), chain(1, 1, note="a"), chain(1, 1, note="b")
    reasons = run(tokenizer, generated([1, 1], *texts), per_prefix=1)[1]
    assert reasons == ["steps without a verdict", KEPT, "beyond per_prefix"]


def test_a_failed_generation_and_one_without_utf8_have_a_reason_of_their_own(tokenizer):
    assert run(tokenizer, generated([1], "", finish="error"))[1] == ["no generation"]
    assert run(tokenizer, generated([1], chain(1, note="\ud800")))[1] == ["no generation"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a {GOOD} b", f"a {GOOD}"),
        ("a \\(\\boxed{\\text{incorrect}}\\). b", f"a \\({BAD}\\)."),
        ("a $\\boxed{\\textbf{correct}}$ b", f"a ${GOOD}$"),
        ("**\\boxed{correct}** b", f"**{GOOD}**"),
        ("\\[ \\boxed{correct} \\]\n\nb", f"\\[ {GOOD} \\]"),
        ("a \\boxed{ Correct }", f"a {GOOD}"),
        ("a \\boxed{correct", f"a {GOOD}"),  # the budget ended inside the box
        ("\\boxed{\\text{correct}} then \\boxed{12}", GOOD),
        (f"<think>\na {GOOD}", f"a {GOOD}"),
        (f"<think>\nhm {BAD}\n</think>\na {GOOD} b", f"a {GOOD}"),  # the answer behind the thinking counts
        (f"<think>\na {GOOD}\n</think>\nIt is right.", f"a {GOOD}"),
        ("<think>nothing</think>", None),
    ],
)
def test_a_chain_is_cut_behind_its_last_verdict_and_its_boxes_are_plain(text, expected):
    assert cut_chain(text) == expected


def test_rows_have_the_columns_of_the_published_set(tokenizer):
    prefix = Prefix("p", ["Step 9: one", "two\n\n# Answer\n\n2"], [1, 0], "here")
    text = f"Sure. Step 1: so. The step is {GOOD}\n\nStep 2: no. The step is {BAD}\n\nBye."
    (kept,), _ = run(tokenizer, Generated(prefix, (text,), (7,), ("stop",)))
    steps = ["Step 1: one", "Step 2: two\n\n# Answer\n\n2"]
    body = text.removesuffix("\n\nBye.")
    row = json.loads(json.dumps(kept.row.to_dict()))
    assert row == {
        "problem": "p",
        "prefix": "\n".join(steps),
        "cot": f"<think>\n{body}\n</think>\nIs the solution correct? No",
        "prefix_steps": steps,
        "gt_step_labels": ["+", "-"],
        "prefix_label": False,
    }
    read = parse_chain(row, "row")
    assert (read.labels, read.correct, read.chain) == ([1, 0], False, training_chain(body))


def many(correct: int, incorrect: int) -> list[Generated]:
    items = [generated([1], chain(1), problem=f"c{i}") for i in range(correct)]
    return items + [generated([0], chain(0), problem=f"i{i}") for i in range(incorrect)]


@pytest.mark.parametrize(
    ("counts", "target", "kept", "dropped"),
    [
        ((7, 3), None, (3, 3), {"balance": 4}),
        ((3, 7), None, (3, 3), {"balance": 4}),
        ((7, 3), 20, (3, 3), {"balance": 4}),
        ((7, 3), 6, (3, 3), {"balance": 4}),
        ((7, 4), 6, (3, 3), {"balance": 3, "beyond the target": 2}),
        ((7, 4), 5, (2, 3), {"balance": 3, "beyond the target": 3}),
        ((0, 4), 6, (0, 0), {"balance": 4}),
    ],
)
def test_balance_and_target(tokenizer, counts, target, kept, dropped):
    chosen, reasons = run(tokenizer, *many(*counts), balance=True, target=target)
    labels = Counter(item.correct for item in chosen)
    assert (labels[True], labels[False]) == kept
    assert Counter(reasons) - Counter({KEPT: sum(kept)}) == dropped


def test_a_target_without_balance(tokenizer):
    chosen, reasons = run(tokenizer, *many(7, 3), target=4)
    assert len(chosen) == 4
    assert reasons.count("beyond the target") == 6


def test_what_is_left_out_is_drawn_by_the_seed_and_not_by_the_order(tokenizer):
    items = many(9, 3)

    def problems(order, seed):
        return [item.row.problem for item in run(tokenizer, *order, balance=True, seed=seed)[0]]

    assert problems(items, 0) == problems(items[::-1], 0)
    assert len({tuple(problems(items, seed)) for seed in range(6)}) > 1


def test_complete_says_when_the_target_can_be_met(tokenizer):
    collection = Collection(Filters(balance=True, target=3), tokenizer, 0)
    said = []
    for number, item in enumerate([*many(3, 0), *many(0, 2)]):
        collection.add(number, item)
        said.append((collection.complete, collection.selectable))
    assert said == [(False, 0), (False, 0), (False, 0), (False, 2), (True, 4)]
    assert len(collection.select()[0]) == 3


def test_the_end_names_the_filters_that_left_chains_out(tokenizer):
    collection = Collection(Filters(balance=True, target=1000), tokenizer, 0)
    for number, item in enumerate([*many(3, 0), generated([1, 1], "no box")]):
        collection.add(number, item)
    assert collection.shortfall(*collection.select()) == (
        "0 chains of the 1,000 wanted: the source is used up; left out of 4 generations: no verdict 1, balance 3. "
        "3 chains of correct and 0 of incorrect prefixes had passed: filter.balance=false keeps them all"
    )


def test_a_source_without_generations_is_used_up(tokenizer):
    collection = Collection(Filters(balance=False, target=None), tokenizer, 0)
    assert collection.shortfall(*collection.select()) == "0 chains: the source is used up"
