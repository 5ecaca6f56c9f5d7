"""Several decode loops of one sampler, each in a thread of its own.

The requests, the caller's code that makes them and what it does with the results stay in the caller's thread: a
lane that has a free slot asks for a request and waits for the answer. So whoever uses a sampler need not know that
there are threads; only the scripts of different requests run at the same time.
"""

from __future__ import annotations

import dataclasses
import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from thinkprm_jax.sampler.lane import Lane, Numbered
from thinkprm_jax.sampler.request import Request, Result

_END = object()  # of a lane


@dataclasses.dataclass
class _Asked:
    """A lane wants up to so many requests; they go to its own queue."""

    answers: queue.SimpleQueue[Any]
    number: int


@dataclasses.dataclass
class _Failed:
    error: BaseException


def run_lanes(lanes: Sequence[Lane], parameters: Any, waiting: Numbered) -> Iterator[tuple[int, Result]]:
    """(number, result) as the requests finish, in whichever lane. What a lane raises is raised here."""
    mail: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in lanes]

    def work(lane: Lane, mine: queue.SimpleQueue[Any]) -> None:
        try:
            for finished in lane.run(parameters, _asking(lane, mail, mine)):
                mail.put(finished)
            mail.put(_END)
        except BaseException as error:  # whatever it is, it belongs to the caller
            mail.put(_Failed(error))

    threads = [
        threading.Thread(target=work, args=pair, name="sampler lane", daemon=True)
        for pair in zip(lanes, answers, strict=True)
    ]
    for lane in lanes:
        lane.stopped = False
    for thread in threads:
        thread.start()
    try:
        running = len(lanes)
        while running:
            match mail.get():
                case _Asked(mine, number):
                    mine.put(_taken(waiting, number))
                case _Failed(error):
                    raise error
                case done if done is _END:
                    running -= 1
                case finished:
                    yield finished
    finally:
        for lane, mine in zip(lanes, answers, strict=True):
            lane.stopped = True
            mine.put([])
        for thread in threads:
            thread.join()


def _taken(waiting: Numbered, number: int) -> list[tuple[int, Request] | None]:
    """The next requests, up to ``number``, and not beyond a None; [] at the end."""
    taken: list[tuple[int, Request] | None] = []
    for item in itertools.islice(waiting, number):
        taken.append(item)
        if item is None:
            break
    return taken


def _asking(
    lane: Lane, mail: queue.SimpleQueue[Any], mine: queue.SimpleQueue[Any]
) -> Iterator[tuple[int, Request] | None]:
    """Requests for the free slots of the lane. Half of what is free at a time: neighbours, which often begin with
    the same tokens, go to one lane, and still no lane takes all there is."""
    while True:
        free = sum(not slot.busy for slot in lane.store.slots)
        mail.put(_Asked(mine, -(-free // 2)))
        answer = mine.get()
        if not answer:
            return
        yield from answer
