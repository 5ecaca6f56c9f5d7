"""What the loss counts, in which batches, and where a stopped stream goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from support import tiny_training
from support.small_batches import make_batch
from thinkprm_jax.arithmetic.source import ArithmeticChains
from thinkprm_jax.arithmetic.task import ArithmeticSource, example
from thinkprm_jax.data.batches import Batch, BatchState, Prefetcher, TokenisedExample, batches, epoch_order
from thinkprm_jax.data.chains import TOO_LONG, ChainReport, LeftOut
from thinkprm_jax.data.sources import ChainDataset, ListedChains, TokenisedDataset
from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.prompts import encode_prompt
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import DataConfig, DataSource, ModelSource, TrainRecipe


def arithmetic_dataset(
    tokenizer: Tokenizer, size: int = 12, longest: int = 4096, weight: float = 1.0
) -> ChainDataset:
    return ChainDataset(size, ArithmeticChains(0, "train", 0), tokenizer, longest, weight)


def test_the_loss_counts_from_think_to_the_end_of_sentence(mini_tokenizer: Tokenizer) -> None:
    dataset = arithmetic_dataset(mini_tokenizer)
    for index in range(len(dataset)):
        chain, row = example(0, index, "train"), dataset[index]
        batch = make_batch([row], 2, 512)
        counted = batch.targets[0][batch.weights[0] > 0]
        think, end = mini_tokenizer.token_id("<think>"), mini_tokenizer.eos_id
        assert (counted[0], counted[-1]) == (think, end)
        answer = " Yes" if chain.correct else " No"
        text = f"<think>\n{chain.chain}\n</think>\nIs the solution correct?{answer}"
        assert mini_tokenizer.decode(counted.tolist()[:-1]) == text
        # The rest of the row is the prompt before <think>, of which nothing is a target.
        first = int(np.argmax(batch.weights[0] > 0))
        opening = encode_prompt(mini_tokenizer, chain.problem, chain.steps)
        assert batch.tokens[0, : first + 1].tolist() == opening[: opening.index(think)]
        assert not batch.weights[0, :first].any()
        # Nothing is a target of padding, and an empty row has no targets.
        assert batch.real_tokens == first + len(counted)
        assert not batch.weights[0, batch.real_tokens :].any()
        assert not batch.weights[1].any()
        assert batch.target_tokens == len(counted)
        np.testing.assert_array_equal(
            batch.tokens[0, 1 : batch.real_tokens], batch.targets[0, : batch.real_tokens - 1]
        )


def test_weights_of_verdicts(mini_tokenizer: Tokenizer) -> None:
    plain, heavy = (arithmetic_dataset(mini_tokenizer, weight=weight)[0] for weight in (1.0, 4.0))
    np.testing.assert_array_equal(plain.ids, heavy.ids)
    changed = {mini_tokenizer.decode([int(token)]) for token in heavy.ids[heavy.weights == 4.0]}
    assert changed <= {"correct", "incorrect", " Yes", " No"}
    assert changed & {" Yes", " No"}
    np.testing.assert_array_equal(heavy.weights > 0, plain.weights > 0)  # the prompt still counts for nothing


class Lengths(TokenisedDataset):
    """Examples of so many ids, all equal to the example's index; a length of None is left out."""

    def __init__(self, lengths: list[int | None], report: ChainReport | None = None) -> None:
        super().__init__(len(lengths), report=report)
        self.lengths = lengths

    def identity(self) -> list:
        return [self.lengths]

    def make(self, index: int) -> TokenisedExample:
        length = self.lengths[index]
        if length is None:
            raise LeftOut("none", "in this test")
        return TokenisedExample(np.full(length, index, np.int32), np.ones(length, np.float32))


LENGTHS = Lengths([9, 3, 5, None, 8, 2, 9, 4, 5, 6, 99, 7, 3])


def stream(epochs: int | None, state: dict | None = None, shuffle: bool = True) -> list:
    state = None if state is None else BatchState.from_json(json.loads(json.dumps(state)))
    rows = {4: 3, 8: 2}
    return list(itertools.islice(batches(LENGTHS, (4, 8), rows.get, 7, shuffle, epochs, state), 40))


@pytest.mark.parametrize("epochs", [None, 2])
def test_a_stream_goes_on_from_any_batch(epochs: int | None) -> None:
    whole = stream(epochs)
    assert len(whole) == 40 if epochs is None else len(whole) < 20
    for position, (_, state) in enumerate(whole[:15]):
        rest = stream(epochs, state)
        for (ours, ours_state), (theirs, theirs_state) in zip(rest, whole[position + 1 :], strict=False):
            np.testing.assert_array_equal(ours.tokens, theirs.tokens)
            assert ours_state == theirs_state
        assert epochs is None or len(rest) == len(whole) - position - 1


def test_every_example_is_seen_once_an_epoch_in_its_bucket() -> None:
    seen, whole = [], stream(epochs=2)
    for batch, _ in whole:
        assert batch.tokens.shape in ((3, 4), (2, 8))
        rows = batch.tokens[batch.weights.any(axis=1)]
        seen += rows[:, 0].tolist()
        needed = (batch.weights > 0).sum(axis=1)
        assert (needed[needed > 0] > (4 if batch.tokens.shape[1] == 8 else 0)).all()
    fitting = [index for index, length in enumerate(LENGTHS.lengths) if length is not None and length <= 9]
    assert sorted(seen) == sorted(fitting * 2)
    assert whole[-1][1]["left_out"] == 2  # each once, however many epochs meet it
    assert [int(batch.tokens[0, 0]) for batch, _ in stream(epochs=1, shuffle=False)] == [0, 1, 6, 7, 11]
    orders = [list(epoch_order(50, 7, epoch, shuffle=True)) for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize(("buckets", "packing"), [((4, 8), False), ((8,), True)])
def test_a_stream_without_usable_examples_ends(buckets: tuple[int, ...], packing: bool) -> None:
    assert list(batches(Lengths([None, 99]), buckets, lambda _: 2, packing=packing)) == []


@pytest.mark.parametrize(("buckets", "packing"), [((4, 8), False), ((8,), True)])
def test_a_process_lays_out_its_rows_of_the_same_batches(buckets: tuple[int, ...], packing: bool) -> None:
    def of(local_rows: list[int] | None, dataset: Lengths) -> list:
        kept = {"packing": packing, "local_rows": lambda rows: local_rows}
        return list(batches(dataset, buckets, lambda _: 4, 7, epochs=2, **kept))

    mine = Lengths(LENGTHS.lengths)
    made = []
    mine.make = lambda index: made.append(index) or LENGTHS.make(index)
    for index in range(len(mine)):
        mine.length(index)  # sizes are known, as after a first epoch
    mine._kept.clear()
    made.clear()
    whole, part = of(None, LENGTHS), of([3, 1], mine)
    assert len(part) == len(whole)
    for (batch, state), (local, local_state) in zip(whole, part, strict=True):
        assert (local.rows, local.local_rows, local_state) == (4, [3, 1], state)
        assert (local.capacity, local.real_tokens) == (batch.tokens.size, batch.real_tokens)
        assert (local.target_tokens, local.examples) == (batch.target_tokens, batch.examples)
        assert batch.target_tokens == np.count_nonzero(batch.weights)
        for name, values in batch.arrays().items():
            np.testing.assert_array_equal(local.arrays()[name], values[[3, 1]])
    held = {int(token) for local, _ in part for token in local.tokens[local.weights > 0]}
    assert set(made) == held  # nobody tokenises the rows of other processes


def test_left_out_examples_are_named(mini_tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    dataset = arithmetic_dataset(mini_tokenizer, longest=130)
    kept = [dataset[index] is not None for index in range(len(dataset))]
    assert 0 < sum(kept) < len(kept)
    assert f"example {kept.index(False)} is left out: too long: " in caplog.text
    assert [dataset.length(index) is not None for index in range(len(dataset))] == kept  # asked again, named once
    assert caplog.text.count("is left out") == kept.count(False)
    assert dataset.report.reasons == {TOO_LONG: kept.count(False)}


def test_a_dataset_remembers_sizes_and_the_latest_examples(mini_tokenizer: Tokenizer) -> None:
    made = []

    class Counted(ChainDataset):
        def make(self, index: int) -> TokenisedExample:
            made.append(index)
            return super().make(index)

    dataset = Counted(6, ArithmeticChains(0, "train", 0), mini_tokenizer, 4096)
    sizes = [(dataset.length(index), dataset.targets(index)) for index in range(6)]
    for index, (places, targets) in enumerate(sizes):
        batch = make_batch([dataset[index]], 1, 512)
        assert (batch.real_tokens, batch.target_tokens) == (places, targets)
    assert made == list(range(6))
    dataset._room = -1  # as if much more had been read
    dataset._keep(0, dataset[0])
    assert dataset.length(1) == sizes[1][0]
    assert made == list(range(6))
    dataset[1]
    assert made == [*range(6), 1]


def test_the_fingerprint_follows_the_content(mini_tokenizer: Tokenizer) -> None:
    def fingerprint(chains: list, size: int) -> str:
        return ChainDataset(size, ListedChains(chains), mini_tokenizer, 4096).fingerprint

    chains = [example(0, index) for index in range(4)]
    same = fingerprint([example(0, index) for index in range(4)], 4)
    assert fingerprint(chains, 4) == same
    edited = [*chains[:3], dataclasses.replace(chains[3], chain=chains[3].chain + " ")]
    streams = [arithmetic_dataset(mini_tokenizer, size).fingerprint for size in (4, 5)]
    others = [fingerprint(edited, 4), fingerprint(chains[::-1], 4), fingerprint(chains[:3], 3), *streams]
    assert len({same, *others}) == 6
    assert streams[0] == arithmetic_dataset(mini_tokenizer, 4).fingerprint


def test_prefetching_keeps_order_and_passes_errors_on() -> None:
    def items():
        yield from range(5)
        raise ValueError("in the thread")

    fetched = Prefetcher(items(), 2)
    assert list(itertools.islice(fetched, 5)) == [0, 1, 2, 3, 4]
    for _ in range(2):
        with pytest.raises(ValueError, match="in the thread"):
            next(fetched)
    fetched.close()
    endless = Prefetcher(itertools.count(), 2)
    next(endless)
    endless.close()
    assert not endless._thread.is_alive()


def test_chains_from_a_file(mini_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A file with the synthetic task's chains gives the batches of the synthetic task itself."""
    rows = []
    for index in range(10):
        chain = example(1, index, "train")
        marks = ["+" if label else "-" for label in chain.labels]
        rows.append({
            "problem": chain.problem, "cot": chain.chain, "prefix_steps": chain.steps, "gt_step_labels": marks,
            "prefix_label": chain.correct,
        })  # fmt: skip
    file = tmp_path / "chains.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def first_batches(train: dict) -> list:
        changes = {"data": {**tiny_training.RECIPE["data"], "train": train}}
        recipe = load_recipe(TrainRecipe, tiny_training.write_recipe(tmp_path, steps=None, epochs=1, **changes))
        dataset = setup.make_dataset(recipe.data.train, recipe, mini_tokenizer, "training data")
        assert setup.count_steps(recipe, dataset) >= 5
        stream = batches(dataset, recipe.data.buckets, recipe.data.rows_of, recipe.seed, epochs=1)
        return [batch.tokens.tolist() for batch, _ in stream]

    listed = first_batches({"chains": str(file)})
    assert listed == first_batches({"arithmetic": {"examples": 10, "seed": 1}})
    file.write_text(json.dumps({**rows[0], "problem": 3}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"chains\.jsonl:1: the field `problem` must be a text"):
        first_batches({"chains": str(file)})


class Rows:
    """Of a trainer, what a stream of batches needs."""

    @staticmethod
    def filled_rows(rows: int) -> int:
        return rows

    @staticmethod
    def rows_wanted(rows: int) -> None:
        return None

    @staticmethod
    def place(batch: Batch) -> dict:
        return {}


def test_rows_of_the_file_that_were_left_out_are_counted_with_those_that_fit_no_row() -> None:
    report = ChainReport("chains.jsonl")
    report.leave_out("chains.jsonl:7", LeftOut("no verdict", "step 1 has none"))
    data = DataConfig(DataSource(arithmetic=ArithmeticSource(examples=1)), buckets=(4, 8), rows=2)
    recipe = TrainRecipe("runs/x", ModelSource(pretrained="mini"), data, epochs=3)
    dataset = Lengths([3, 99, 5, 4], report)
    whole = list(setup.training_batches(recipe, dataset, Rows()))  # type: ignore[arg-type]
    assert whole[-1][2]["left_out"] == 2  # the row of the file and the one that is too long, in three epochs
    [first, *_] = whole
    rest = list(setup.training_batches(recipe, dataset, Rows(), BatchState.from_json(first[2])))  # type: ignore[arg-type]
    assert rest[-1][2] == whole[-1][2]


def test_a_stream_of_nothing_usable_ends() -> None:
    assert not list(batches(Lengths([None, 99]), (4, 8), {4: 3, 8: 2}.get, 7, True, None))
