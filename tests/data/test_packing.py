"""Several examples in a row: each once, whole, apart from one another, and the same stream from any batch on."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.small_batches import make_batch
from thinkprm_jax.data.batches import BatchState, TokenisedExample, batches, plans
from thinkprm_jax.data.packing import fill_rows, place_in_order
from thinkprm_jax.data.sources import TokenisedDataset

LENGTH = 16
sizes = st.lists(st.integers(2, LENGTH + 3), min_size=1, max_size=40)  # ids; some are longer than a row
limits = st.none() | st.integers(1, 9)
rows_ = st.integers(1, 4)


class Numbered(TokenisedDataset):
    """Examples of given sizes; no two share an id. The first third of each is a prompt."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__(len(sizes))
        self.sizes = sizes

    def identity(self) -> list:
        return [self.sizes]

    def make(self, index: int) -> TokenisedExample:
        ids = (1000 * (index + 1) + np.arange(self.sizes[index])).astype(np.int32)
        weights = np.where(np.arange(len(ids)) < len(ids) / 3, 0.0, 1.0 + index).astype(np.float32)
        return TokenisedExample(ids, weights)


def stream(
    sizes: list[int], rows: int, limit: int | None, epochs: int | None = 2, state: dict | None = None
) -> list:
    state = None if state is None else BatchState.from_json(json.loads(json.dumps(state)))
    found = batches(
        Numbered(sizes), (LENGTH,), lambda _: rows, 3, True, epochs, state, packing=True, examples=limit
    )
    return list(itertools.islice(found, 60))


def segments(batch) -> list[tuple[int, int]]:
    """(row, segment) of every example of a batch."""
    return [(row, s) for row in range(batch.rows) for s in range(1, int(batch.segment_ids[row].max()) + 1)]


@settings(deadline=None, max_examples=60)
@given(sizes, rows_, limits)
def test_packed_rows_are_the_examples(sizes: list[int], rows: int, limit: int | None) -> None:
    """Ids, targets, weights and positions of a segment are those of the example in a row of its own; every example
    that fits is in each epoch once; nothing but examples is in a row."""
    dataset, seen = Numbered(sizes), Counter()
    for batch, _ in stream(sizes, rows, limit):
        assert batch.tokens.shape == (rows, LENGTH)
        for row, segment in segments(batch):
            (here,) = np.nonzero(batch.segment_ids[row] == segment)
            assert list(here) == list(range(here[0], here[0] + len(here)))
            index = int(batch.tokens[row, here[0]]) // 1000 - 1
            alone = make_batch([dataset.make(index)], 1, sizes[index] - 1)
            for name in ("tokens", "targets", "weights"):
                np.testing.assert_array_equal(getattr(batch, name)[row, here], getattr(alone, name)[0])
            np.testing.assert_array_equal(batch.positions[row, here], np.arange(sizes[index] - 1))
            seen[index] += 1
        padding = batch.segment_ids == 0
        assert not any(values[padding].any() for values in batch.arrays().values())
        assert batch.examples == len(segments(batch)) <= (limit or batch.examples)
        assert batch.real_tokens == np.count_nonzero(~padding)
        assert batch.target_tokens == np.count_nonzero(batch.weights)
    assert seen == {index: 2 for index, size in enumerate(sizes) if size - 1 <= LENGTH}


@settings(deadline=None, max_examples=40)
@given(sizes, rows_, limits, st.sampled_from([None, 2]), st.data())
def test_a_packed_stream_goes_on_from_any_batch(
    sizes: list[int], rows: int, limit: int | None, epochs: int | None, data: st.DataObject
) -> None:
    whole = stream(sizes, rows, limit, epochs)
    if not whole:
        return
    at = data.draw(st.integers(0, len(whole) - 1))
    rest = stream(sizes, rows, limit, epochs, whole[at][1])
    assert len(rest) == len(whole) - at - 1 or epochs is None
    for (ours, ours_state), (theirs, theirs_state) in zip(rest, whole[at + 1 :], strict=False):
        assert ours_state == theirs_state
        for name, values in theirs.arrays().items():
            np.testing.assert_array_equal(ours.arrays()[name], values)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(1, LENGTH), min_size=1, max_size=30), rows_, st.sampled_from([fill_rows, place_in_order])
)
def test_rows_hold_what_they_can(lengths: list[int], rows: int, choose) -> None:
    filled, waiting = choose(lengths, rows, LENGTH)
    assert sorted([*itertools.chain(*filled), *waiting]) == list(range(len(lengths)))  # each once
    assert len(filled) <= rows
    assert all(row for row in filled)
    room = [LENGTH - sum(lengths[place] for place in row) for row in filled]
    assert min(room) >= 0
    assert 0 not in waiting  # the oldest never waits
    assert waiting == sorted(waiting)
    if len(filled) < rows:
        assert not waiting
    if waiting and choose is fill_rows:
        assert min(lengths[place] for place in waiting) > max(room)


def test_a_row_is_filled_exactly_where_that_is_possible() -> None:
    # A greedy choice (12 with 3) leaves places empty; 7 + 4 + 5 does not. Ties go to the older examples.
    assert fill_rows([7, 8, 4, 5, 4], 1, 16) == ([[0, 2, 3]], [1, 4])
    assert fill_rows([9, 3, 3, 4, 4], 1, 16) == ([[0, 1, 3]], [2, 4])


class Sizes:
    """A dataset of which only the lengths are known."""

    fingerprint = ""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def length(self, index: int) -> int:
        return self._lengths[index]

    def targets(self, index: int) -> int:
        return 0

    def __getitem__(self, index: int) -> None:
        return None


def used_share(lengths: Sequence[int], row: int, rows: int, packing: bool) -> float:
    """The share of positions that hold a token, over the batches of three epochs."""
    planned = list(plans(Sizes(lengths), (row,), lambda _: rows, epochs=3, packing=packing))
    used = sum(lengths[index] for plan in planned for members in plan.members for index in members)
    return used / sum(plan.rows * plan.length for plan in planned)


def test_a_batch_of_so_many_examples_takes_the_next_ones_in_order() -> None:
    """Those that do not fit come first in the next batch."""
    sizes = [11, 11, 4, 11, 4, 4, 3]
    found = plans(Numbered(sizes), (LENGTH,), lambda _: 2, shuffle=False, epochs=1, packing=True, examples=4)
    planned = [(plan.members, plan.state.waiting[LENGTH]) for plan in found]
    assert planned == [([[0, 2], [1]], [3]), ([[3, 4, 5], [6]], [])]


def test_an_example_with_targets_of_its_own_takes_all_its_positions() -> None:
    class Labelled(Numbered):
        def make(self, index: int) -> TokenisedExample:
            ids = np.arange(1, self.sizes[index] + 1, dtype=np.int32)
            return TokenisedExample(ids, np.ones(len(ids), np.float32), ids + 100)

    ((batch, _),) = batches(
        Labelled([LENGTH // 2] * 2), (LENGTH,), lambda _: 1, epochs=1, shuffle=False, packing=True
    )
    np.testing.assert_array_equal(batch.targets, batch.tokens + 100)
    assert batch.real_tokens == LENGTH
    assert batch.segment_ids.tolist() == [[1] * (LENGTH // 2) + [2] * (LENGTH // 2)]


@pytest.mark.parametrize(("rows", "least"), [(1, 0.98), (8, 0.98), (16, 0.98)])
def test_rows_are_full_on_lengths_like_those_of_the_1k_set(rows: int, least: float) -> None:
    """Drawn, not the set's own: chain tokens with its mean, least and greatest (1,037, 207, 3,669), right-skewed,
    and prompts of some hundreds."""
    rng = np.random.default_rng(0)
    chains = np.exp(rng.normal(np.log(1037) - 0.15, 0.55, 1000)).clip(207, 3669)
    prompts = np.exp(rng.normal(np.log(400) - 0.06, 0.35, 1000)).clip(150, 1200)
    lengths = (chains + prompts).astype(int).tolist()
    packed = used_share(lengths, 4096, rows, packing=True)
    padded = used_share(lengths, 4096, rows, packing=False)
    print(f"{rows} rows of 4,096: {packed:.1%} of the positions used, {padded:.1%} without packing")
    assert packed > least
    assert padded < 0.4
