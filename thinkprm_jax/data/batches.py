"""Batches of fixed shapes from a stream of examples of many lengths.

Two ways to fill a batch. **Buckets**: an example goes, alone in its row, into the smallest length bucket that
holds it, and a bucket that is full leaves as a batch. **Packing**: several examples share a row of one length
(:mod:`~thinkprm_jax.data.packing`).

Either way the stream is planned from lengths alone (:func:`plans`) and then laid out (:func:`batches`). So it is a
pure function of (dataset, seed), the same in every process, of which each lays out its own rows only.
:class:`BatchState` says where in the stream we are: a few integers that go into the checkpoint and from which the
rest follows exactly.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from thinkprm_jax.data.packing import LOOK_AHEAD, fill_rows, place_in_order

Value = TypeVar("Value")


@dataclass(frozen=True)
class TokenisedExample:
    """ids int [n]; weights float32 [n]: the weight of each token as a target, 0 on the prompt.

    It takes n - 1 positions of a row: each id but the last is an input, each but the first a target. With targets
    of its own, int [n], it takes n: every id is an input, and targets[t] and weights[t] belong to input t.
    """

    ids: np.ndarray
    weights: np.ndarray
    targets: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Positions of a row that it takes."""
        return len(self.ids) - (self.targets is None)

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, targets and weights, one a position."""
        if self.targets is None:
            return self.ids[:-1], self.ids[1:], self.weights[1:]
        return self.ids, self.targets, self.weights


class Dataset(Protocol):
    """Examples by index, each a pure function of its index.

    Sizes are asked for over and over, tokens of an example only where it is laid out: a dataset remembers the
    sizes (:class:`~thinkprm_jax.data.sources.TokenisedDataset` does).
    """

    @property
    def fingerprint(self) -> str:
        """Says whether two datasets hold the same examples; the same in every process and on every machine."""

    @property
    def unusable(self) -> int:
        """Rows of the file that its examples are from, of which none became an example."""

    def __len__(self) -> int: ...

    def length(self, index: int) -> int | None:
        """How many positions of a row the example takes; None: it is left out (the dataset says why)."""

    def targets(self, index: int) -> int:
        """How many of its targets the loss counts; 0 where it is left out."""

    def __getitem__(self, index: int) -> TokenisedExample | None: ...


@dataclass(frozen=True)
class Batch:
    """Rows of one length T. All arrays are [B, T]: T inputs and the T tokens they predict.

    tokens: int32, the inputs. targets: int32, targets[b, t] follows tokens[b, t] in the same example. weights:
    float32, the weight of each target; 0 on prompts, padding and empty rows.
    real_tokens: inputs that are not padding. target_tokens: targets that the loss counts. examples: how many.
    These three and ``rows`` are of the whole batch, wherever its rows are.
    positions, segment_ids: int32, packed batches only: the position in its example, from 0; the number of the
    example in its row, from 1, 0 for padding.
    local_rows: the arrays hold these rows of the batch only, in this order; None: they hold all.
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    real_tokens: int
    target_tokens: int
    positions: np.ndarray | None = None
    segment_ids: np.ndarray | None = None
    local_rows: list[int] | None = None
    rows: int = 0  # default: those of the arrays
    examples: int = 0

    def __post_init__(self) -> None:
        if not self.rows:
            object.__setattr__(self, "rows", len(self.tokens))

    @property
    def capacity(self) -> int:
        """Inputs of the whole batch, padding included."""
        return self.rows * self.tokens.shape[1]

    def arrays(self) -> dict[str, np.ndarray]:
        """What the device gets, by name."""
        names = ("tokens", "targets", "weights", "positions", "segment_ids")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass
class BatchState:
    """Position in the stream: examples read so far, and the indices that wait, by the length of their rows.

    left_out: what cannot be used, so far, each once however many epochs meet it: rows of the file the examples are
    from, before the first batch, and examples that fit no row.
    """

    epoch: int = 0
    position: int = 0
    waiting: dict[int, list[int]] = field(default_factory=dict)
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "position": self.position,
            "waiting": {str(bucket): indices for bucket, indices in self.waiting.items() if indices},
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> BatchState:
        waiting = {int(bucket): list(indices) for bucket, indices in state["waiting"].items()}
        return cls(state["epoch"], state["position"], waiting, state["left_out"])


@dataclass(frozen=True)
class BatchPlan:
    """What a batch will hold. members: indices of examples, row by row; rows beyond them are empty.

    state: the position in the stream after this batch.
    """

    members: list[list[int]]
    rows: int
    length: int
    packed: bool
    state: BatchState


def bucket_of(inputs: int, buckets: Sequence[int]) -> int | None:
    """The smallest bucket that holds so many inputs; None: too long."""
    return next((bucket for bucket in buckets if inputs <= bucket), None)


def epoch_order(size: int, seed: int, epoch: int, shuffle: bool) -> Sequence[int]:
    """The indices of one epoch, in order."""
    return np.random.default_rng((seed, epoch)).permutation(size).tolist() if shuffle else range(size)


def lay_out(members: Sequence[Sequence[TokenisedExample]], rows: int, length: int, packed: bool) -> Batch:
    """Rows of one or more examples, padded on the right, and empty rows. packed: with positions and segments."""
    tokens, targets, positions, segments = (np.zeros((rows, length), np.int32) for _ in range(4))
    weights = np.zeros((rows, length), np.float32)
    for row, examples in enumerate(members):
        start = 0
        for segment, example in enumerate(examples, start=1):
            here = np.s_[row, start : start + example.length]
            # The last id is a target only: no position of a row predicts a token of the next example.
            tokens[here], targets[here], weights[here] = example.columns
            positions[here], segments[here] = np.arange(example.length), segment
            start += example.length
    return Batch(
        tokens,
        targets,
        weights,
        real_tokens=int(np.count_nonzero(segments)),
        target_tokens=int(np.count_nonzero(weights)),
        positions=positions if packed else None,
        segment_ids=segments if packed else None,
        examples=sum(map(len, members)),
    )


class _Reader:
    """Walks through the epochs; iterating gives (index, length) of every example that fits a row."""

    def __init__(
        self, dataset: Dataset, longest: int, seed: int, shuffle: bool, epochs: int | None, state: BatchState
    ) -> None:
        self._dataset, self._longest, self._epochs = dataset, longest, epochs
        self._order_of = lambda epoch: epoch_order(len(dataset), seed, epoch, shuffle)
        self._epoch, self._position, self._left_out = state.epoch, state.position, state.left_out

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while self._epochs is None or self._epoch < self._epochs:
            order = self._order_of(self._epoch)
            begun, useful = self._position, False
            while self._position < len(order):
                index = order[self._position]
                self._position += 1
                length = self._dataset.length(index)
                if length is not None and length <= self._longest:
                    useful = True
                    yield index, length
                elif self._epoch == 0:  # later epochs meet it again
                    self._left_out += 1
            self._epoch, self._position = self._epoch + 1, 0
            if self._epochs is None and not begun and not useful:
                return  # nothing in the dataset can be used

    def state(self, waiting: dict[int, list[int]]) -> BatchState:
        return BatchState(self._epoch, self._position, waiting, self._left_out)


def plans(
    dataset: Dataset,
    buckets: Sequence[int],
    rows_of: Callable[[int], int],
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    state: BatchState | None = None,
    *,
    packing: bool = False,
    examples: int | None = None,
) -> Iterator[BatchPlan]:
    """What :func:`batches` will lay out; the arguments are its own. Asks the dataset for lengths only."""
    state = BatchState() if state is None else state
    reader = _Reader(dataset, buckets[-1], seed, shuffle, epochs, state)
    if packing:
        (length,) = buckets
        waiting = [(index, _require(dataset.length(index), index)) for index in state.waiting.get(length, [])]
        yield from _packed(reader, waiting, length, rows_of(length), examples)
    else:
        yield from _bucketed(reader, {bucket: state.waiting.get(bucket, []) for bucket in buckets}, rows_of)


def _bucketed(
    reader: _Reader, waiting: dict[int, list[int]], rows_of: Callable[[int], int]
) -> Iterator[BatchPlan]:
    def leave(bucket: int) -> BatchPlan:
        members = [[index] for index in waiting[bucket]]
        waiting[bucket] = []
        state = reader.state({bucket: list(indices) for bucket, indices in waiting.items()})
        return BatchPlan(members, rows_of(bucket), bucket, False, state)

    waiting = {bucket: list(indices) for bucket, indices in waiting.items()}
    for index, length in reader:
        bucket = bucket_of(length, list(waiting))
        assert bucket is not None
        waiting[bucket].append(index)
        if len(waiting[bucket]) == rows_of(bucket):
            yield leave(bucket)
    for bucket in waiting:
        if waiting[bucket]:
            yield leave(bucket)


def _packed(
    reader: _Reader, waiting: list[tuple[int, int]], length: int, rows: int, examples: int | None
) -> Iterator[BatchPlan]:
    """waiting: (index, length), oldest first."""
    stream = iter(reader)
    choose = fill_rows if examples is None else place_in_order
    enough = (rows + LOOK_AHEAD) * length
    while True:
        total = sum(needed for _, needed in waiting)
        while (total < enough) if examples is None else (len(waiting) < examples):
            found = next(stream, None)
            if found is None:
                break
            waiting.append(found)
            total += found[1]
        if not waiting:
            return
        now = waiting[:examples]
        filled, left = choose([needed for _, needed in now], rows, length)
        members = [[now[place][0] for place in row] for row in filled]
        waiting = [now[place] for place in left] + waiting[len(now) :]
        yield BatchPlan(members, rows, length, True, reader.state({length: [index for index, _ in waiting]}))


def batches(
    dataset: Dataset,
    buckets: Sequence[int],
    rows_of: Callable[[int], int],
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    state: BatchState | None = None,
    *,
    packing: bool = False,
    examples: int | None = None,
    filled_rows: Callable[[int], int] | None = None,
    local_rows: Callable[[int], Sequence[int] | None] | None = None,
) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Batches from ``state`` on, each with the (JSON) state after it.

    With ``epochs``, the stream ends after them, and what waits leaves as batches with empty rows; without, it
    never ends, and what waits at the end of an epoch goes on waiting. So each epoch's examples are used once each.

    Args:
      buckets: lengths of rows, rising. An example that is longer than the last is left out.
      rows_of: rows of a batch, by bucket.
      packing: several examples in a row; ``buckets`` has one length. The examples are those that fill the rows
        best (:func:`~thinkprm_jax.data.packing.fill_rows`), or:
      examples: the next so many in order; those that the rows cannot hold come first in the next batch.
      filled_rows: from the rows of a plan to those that are laid out, some of them empty: what the devices divide
        among them. Which examples a batch has does not depend on it.
      local_rows: from the number of rows to those that this process lays out (None: all of them).
    """
    for plan in plans(dataset, buckets, rows_of, seed, shuffle, epochs, state, packing=packing, examples=examples):
        if filled_rows is not None:
            plan = replace(plan, rows=filled_rows(plan.rows))
        yield _fill(plan, dataset, local_rows and local_rows(plan.rows)), plan.state.to_json()


def _fill(plan: BatchPlan, dataset: Dataset, local_rows: Sequence[int] | None) -> Batch:
    rows = range(plan.rows) if local_rows is None else local_rows
    members = [plan.members[row] if row < len(plan.members) else [] for row in rows]
    loaded = [[_require(dataset[index], index) for index in row] for row in members]
    batch = lay_out(loaded, len(rows), plan.length, plan.packed)
    indices = [index for row in plan.members for index in row]
    return replace(
        batch,
        real_tokens=sum(_require(dataset.length(index), index) for index in indices),
        target_tokens=sum(dataset.targets(index) for index in indices),
        local_rows=None if local_rows is None else list(local_rows),
        rows=plan.rows,
        examples=len(indices),
    )


def _require(value: Value | None, index: int) -> Value:
    if value is None:
        raise RuntimeError(f"example {index} waits in the checkpoint but the data leaves it out: the data changed")
    return value


@dataclass(frozen=True)
class _End:
    """What a prefetched iterator ended with; None: with nothing."""

    error: BaseException | None = None


class Prefetcher(Generic[Value]):
    """Runs an iterator in a thread, ``depth`` items ahead. An exception in it is raised at the reader."""

    def __init__(self, items: Iterator[Value], depth: int) -> None:
        self._queue: queue.Queue[Value | _End] = queue.Queue(max(depth, 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), name="batches", daemon=True)
        self._thread.start()

    def _run(self, items: Iterator[Value]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
            self._put(_End())
        except BaseException as error:
            self._put(_End(error))

    def _put(self, item: Value | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Value]:
        return self

    def __next__(self) -> Value:
        item = self._queue.get()
        if not isinstance(item, _End):
            return item
        self._put(item)  # a second read ends the same way
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)
