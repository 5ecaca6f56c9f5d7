"""Batches of fixed shapes from a stream of examples of many lengths.

Examples are read in a deterministic order and put into the smallest length bucket that holds them; a bucket that
is full leaves as a batch. So every bucket has one shape (one compiled step), padding is small, and the stream of
batches is a pure function of (dataset, seed). :class:`BatchState` says where in it we are: a few integers that go
into the checkpoint and from which the rest follows exactly.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Example:
    """ids int [n]; weights float32 [n]: the weight of each token as a target, 0 on the prompt.

    It takes n - 1 places of a row: each id but the last is an input, each but the first a target.
    """

    ids: np.ndarray
    weights: np.ndarray


class Dataset(Protocol):
    """Examples by index, each a pure function of its index; None: left out (the dataset says why)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example | None: ...


@dataclass(frozen=True)
class Batch:
    """Rows of one bucket. All [B, T]; T inputs and the T tokens they predict.

    tokens: int32, the inputs. targets: int32, targets[b, t] follows tokens[b, t]. weights: float32, the weight of
    each target; 0 on prompts, padding and empty rows.
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    real_tokens: int  # inputs that are not padding
    target_tokens: int

    def arrays(self) -> dict[str, np.ndarray]:
        return {"tokens": self.tokens, "targets": self.targets, "weights": self.weights}


@dataclass
class BatchState:
    """Position in the stream: examples read so far, and the indices that wait in unfinished buckets."""

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


def bucket_of(inputs: int, buckets: Sequence[int]) -> int | None:
    """The smallest bucket that holds so many inputs; None: too long."""
    return next((bucket for bucket in buckets if inputs <= bucket), None)


def epoch_order(size: int, seed: int, epoch: int, shuffle: bool) -> Sequence[int]:
    """The indices of one epoch, in order."""
    return np.random.default_rng((seed, epoch)).permutation(size) if shuffle else range(size)


def make_batch(examples: Sequence[Example], rows: int, length: int) -> Batch:
    """Pads examples on the right, and with empty rows."""
    tokens = np.zeros((rows, length), np.int32)
    targets = np.zeros((rows, length), np.int32)
    weights = np.zeros((rows, length), np.float32)
    for row, example in enumerate(examples):
        for array, column in zip((tokens, targets, weights), example.columns, strict=True):
            array[row, : example.inputs] = column
    real = sum(example.inputs for example in examples)
    return Batch(tokens, targets, weights, real, int(np.count_nonzero(weights)))


def batches(
    dataset: Dataset,
    buckets: Sequence[int],
    rows_of: Callable[[int], int],
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    state: BatchState | None = None,
) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Batches from ``state`` on, each with the (JSON) state after it.

    With ``epochs``, the stream ends after them, and unfinished buckets leave as batches with empty rows; without,
    it never ends, and what waits in a bucket at the end of an epoch stays for the next.
    """
    state = BatchState() if state is None else state
    held: dict[int, list[tuple[int, Example]]] = {
        bucket: [(i, _require(dataset[i], i)) for i in state.waiting.get(bucket, [])] for bucket in buckets
    }

    def leave(bucket: int) -> tuple[Batch, dict[str, Any]]:
        batch = make_batch([example for _, example in held[bucket]], rows_of(bucket), bucket)
        held[bucket] = []
        waiting = {b: [i for i, _ in members] for b, members in held.items()}
        return batch, BatchState(epoch, position, waiting, left_out).to_json()

    epoch, position, left_out = state.epoch, state.position, state.left_out
    while epochs is None or epoch < epochs:
        order = epoch_order(len(dataset), seed, epoch, shuffle)
        while position < len(order):
            index = int(order[position])
            position += 1
            example = dataset[index]
            bucket = None if example is None else bucket_of(example.inputs, buckets)
            if bucket is None:
                left_out += 1
                continue
            held[bucket].append((index, example))
            if len(held[bucket]) == rows_of(bucket):
                yield leave(bucket)
        epoch, position = epoch + 1, 0
        if epochs is None and not any(held.values()) and left_out == epoch * len(dataset):
            return  # nothing in the dataset can be used
    for bucket in buckets:
        if held[bucket]:
            yield leave(bucket)


def _require(example: Example | None, index: int) -> Example:
    if example is None:
        raise RuntimeError(f"example {index} waits in the checkpoint but the data leaves it out: the data changed")
    return example


class Prefetcher:
    """Runs an iterator in a thread, ``depth`` items ahead. An exception in it is raised at the reader."""

    def __init__(self, items: Iterator[Any], depth: int) -> None:
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(max(depth, 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), name="batches", daemon=True)
        self._thread.start()

    def _run(self, items: Iterator[Any]) -> None:
        try:
            for item in items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:
            self._put("error", error)

    def _put(self, kind: str, value: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put((kind, value), timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        kind, value = self._queue.get()
        if kind == "item":
            return value
        self._put(kind, value)  # a second read ends the same way
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)
