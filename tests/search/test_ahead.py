"""Items made by a thread while others are taken: nothing lost, errors and ends arrive."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

import pytest

from thinkprm_jax.search.ahead import run_ahead


def taken(items: Iterator[int | None]) -> list[int]:
    return [item for item in items if item is not None]


def test_all_items_come_in_order_and_none_where_the_next_is_not_there() -> None:
    go_on = threading.Event()

    def items() -> Generator[int, None, None]:
        yield 1
        go_on.wait(10)
        yield 2

    ahead = run_ahead(items())
    found: list[int | None] = []
    while 1 not in found:
        found.append(next(ahead))
    assert next(ahead) is None
    go_on.set()
    assert taken(ahead) == [2]


def test_an_error_comes_behind_what_was_made_before_it() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        raise LookupError("no more")

    found: list[int] = []
    with pytest.raises(LookupError, match="no more"):
        list(map(found.append, filter(None, run_ahead(items()))))
    assert found == [1]


def test_closing_ends_the_thread_and_the_items() -> None:
    ended = []

    def items() -> Generator[int, None, None]:
        try:
            yield from range(10**9)
        finally:
            ended.append(threading.current_thread())

    ahead = run_ahead(items())
    next(ahead)
    ahead.close()
    assert ended
    assert not ended[0].is_alive()
