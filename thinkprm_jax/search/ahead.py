"""Making things in the meantime: solutions are written while those that are finished are judged."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def run_ahead(items: Generator[T, None, None]) -> Generator[T | None, None, None]:
    """The same items, made by a thread of their own; None where the next one is not there yet.

    An exception on the way to an item is raised in its place. Closing this stops the thread at its next item.
    """
    made: queue.SimpleQueue[tuple[bool, T | BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                made.put((True, item))
                if stopped.is_set():
                    break
            items.close()
        except BaseException as raised:  # whatever it is, it belongs to who takes the items
            error = raised
        made.put((False, error))

    thread = threading.Thread(target=work, name="run_ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                is_item, value = made.get_nowait()
            except queue.Empty:
                yield None
                continue
            if is_item:
                yield value  # type: ignore[misc]
            elif value is not None:
                raise value  # type: ignore[misc]
            else:
                return
    finally:
        stopped.set()
        thread.join()
