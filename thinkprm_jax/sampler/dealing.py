"""Which replica gets which request: where its prompt's beginning is known, while no other stands idle.

A prompt that begins as one before it needs little processing where that one was (its siblings, a search's next
round), and all of it elsewhere. So requests go where fewest tokens are new to the replica, and a replica's load
counts against it as new tokens would. No place in a row stays empty for the sake of a prefix but for one chunk.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from thinkprm_jax.sampler.handle import RequestHandle, StepLoop
    from thinkprm_jax.sampler.request import Request
    from thinkprm_jax.sampler.scheduler import Worker

logger = logging.getLogger(__name__)

_BLOCK = 64  # tokens between the beginnings that are remembered
_REMEMBERED = 2**15  # beginnings
# In tokens of a prompt that would have to be processed: a job that a replica has already, and waiting for the end
# of the chunk that it is in. On one H200 a row more lengthens a step little, and a chunk is tens of milliseconds,
# in which a prefill processes hundreds of tokens.
_JOB, _CHUNK = 32, 256
_LOOKED_AT = 64  # requests that wait for a replica which is in a chunk, while those behind them are dealt
_MOST_FAILURES = 3  # of a replica in a row; then it gets nothing more: it would take all there is, and fail it

Hand = collections.deque["RequestHandle"]


class Dealer:
    """Chooses a replica for each request, and remembers what it has chosen.

    Args:
      replicas: how many there are.

    Attributes:
      serving: for each of them, whether it gets requests.
    """

    def __init__(self, replicas: int) -> None:
        self._every = (1 << replicas) - 1
        self._homes: collections.OrderedDict[bytes, int] = (
            collections.OrderedDict()
        )  # beginning -> bits of replicas
        self.serving, self._failures = [True] * replicas, [0] * replicas

    def forget(self) -> None:
        """Nobody knows any beginning any more."""
        self._homes.clear()

    def deal(
        self,
        workers: Sequence[Worker],
        idle: Sequence[Worker],
        most: int,
        take: Callable[[], RequestHandle | None],
    ) -> tuple[dict[Worker, Hand], list[RequestHandle]]:
        """Takes up to ``most`` requests from the queue and deals them to the replicas that are not in a chunk.

        Returns: (what each of those gets, what is to go back to the queue).
        """
        hands: dict[Worker, Hand] = {worker: collections.deque() for worker in idle}
        back: list[RequestHandle] = []
        loads: list[int | None] = [
            len(worker.jobs) if serves and worker.free else None
            for worker, serves in zip(workers, self.serving, strict=True)
        ]
        busy = [worker not in hands for worker in workers]

        def is_open() -> bool:
            return any(load is not None and not chunk for load, chunk in zip(loads, busy, strict=True))

        for _ in range(most):
            if not is_open() or len(back) >= _LOOKED_AT or (handle := take()) is None:
                break
            stands_idle = any(load == 0 and not chunk for load, chunk in zip(loads, busy, strict=True))
            room = [None if stands_idle and chunk else load for load, chunk in zip(loads, busy, strict=True)]
            number = self.choose(handle.prompt, room, busy)
            worker = workers[number]
            if busy[number]:
                back.append(handle)
                continue
            self.note(handle.prompt, number)
            hands[worker].append(handle)
            load = len(worker.jobs) + len(hands[worker])
            loads[number] = load if len(hands[worker]) < worker.free else None
        return hands, back

    def failed(self, number: int, error: Exception) -> None:
        """A chunk of a replica has failed. The last one that serves goes on whatever happens."""
        self._failures[number] += 1
        if self._failures[number] >= _MOST_FAILURES and self.serving[number] and sum(self.serving) > 1:
            self.serving[number] = False
            logger.error(
                "replica %d failed %d times in a row and gets nothing more: %s", number, _MOST_FAILURES, error
            )

    def worked(self, number: int) -> None:
        self._failures[number] = 0

    def choose(self, prompt: Sequence[int], loads: Sequence[int | None], busy: Sequence[bool]) -> int:
        """The replica for a prompt.

        Args:
          loads: jobs of each replica; None: it has no room. One of them must have.
          busy: it is in a chunk, and takes nothing before the end of it.
        """
        known = [0] * len(loads)
        missing = self._every
        for length, beginning in reversed(_beginnings(prompt)):
            if not missing:
                break
            found = self._homes.get(beginning, 0) & missing
            missing &= ~found
            for number in range(len(loads)):
                if found >> number & 1:
                    known[number] = length
        costs = [
            (len(prompt) - known[number] + _JOB * load + _CHUNK * busy[number], number)
            for number, load in enumerate(loads)
            if load is not None
        ]
        return min(costs)[1]

    def note(self, prompt: Sequence[int], replica: int) -> None:
        """The replica gets it."""
        for _, beginning in _beginnings(prompt):
            self._homes[beginning] = self._homes.get(beginning, 0) | 1 << replica
            self._homes.move_to_end(beginning)
        while len(self._homes) > _REMEMBERED:
            self._homes.popitem(last=False)


def _beginnings(prompt: Sequence[int]) -> list[tuple[int, bytes]]:
    """(tokens, digest) of the beginnings of a prompt, one every _BLOCK tokens, and of all of it."""
    data, digest = np.asarray(prompt, np.int32).tobytes(), hashlib.blake2b(digest_size=12)
    found = []
    for begin in range(0, len(prompt), _BLOCK):
        digest.update(data[4 * begin : 4 * (begin + _BLOCK)])
        found.append((min(begin + _BLOCK, len(prompt)), digest.digest()))
    return found


class Queue(Protocol):
    """What requests are dealt from. loop: guards it."""

    loop: StepLoop

    def take(self) -> RequestHandle | None: ...

    def put_back(self, handles: Iterable[RequestHandle]) -> None: ...


@contextlib.contextmanager
def dealing(
    dealer: Dealer | None, workers: Sequence[Worker], idle: Sequence[Worker], most: int, queue: Queue
) -> Iterator[dict[Worker, Hand] | None]:
    """What each idle replica gets of up to ``most`` requests; what none of them takes goes back to the queue.
    None: nobody deals, and workers take what comes."""
    if dealer is None:
        yield None
        return
    with queue.loop.changed:
        hands, back = dealer.deal(workers, idle, most, queue.take)
        queue.put_back(back)
    try:
        yield hands
    finally:
        queue.put_back([handle for hand in hands.values() for handle in hand])


def draw(hand: Hand) -> RequestHandle | None:
    """The next of a hand; None: it is empty."""
    return hand.popleft() if hand else None


def larger_first(numbered: Iterator[tuple[int, Request]], ahead: int) -> Iterator[tuple[int, Request]]:
    """Takes ``ahead`` requests at a time and gives the larger ones first.

    A long request that starts last keeps one slot busy while all the others stand empty. Within a window nothing
    waits for what comes after it, so the order of a long input is kept on the whole.
    """
    while window := list(itertools.islice(numbered, ahead)):
        yield from sorted(window, key=lambda item: -item[1].size_hint)
