"""Pages and who holds them: what a row has written it keeps, whatever others do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkprm_jax.sampler.page_pool import NOBODY, PagePool

ROWS, PAGES, SIZE = 4, 14, 3
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "cut", "fork", "keep", "drop"]), *[st.integers(0, 30)] * 3), max_size=60
)


class Memory:
    """Pages with what was written there, and what each row should have."""

    def __init__(self) -> None:
        self.pool = PagePool(PAGES, SIZE)
        self.places: dict[tuple[int, int], int] = {}
        self.tables: list[list[int]] = [[] for _ in range(ROWS)]
        self.texts: list[list[int]] = [[] for _ in range(ROWS)]
        self.kept: list[tuple[list[int], list[int]]] = []
        self.written = 0

    def read(self, table: list[int], length: int) -> list[int]:
        return [self.places[table[i // SIZE], i % SIZE] for i in range(length)]

    def write(self, row: int, count: int) -> None:
        table, text = self.tables[row], self.texts[row]
        begin, end = len(text), len(text) + count
        wanted, before = self.pool.wanted(table, begin, end), list(table)
        if wanted > self.pool.free:
            with pytest.raises(IndexError):
                self.pool.grow(table, begin, end)
            assert table == before
            return
        free = self.pool.free
        for source, target in self.pool.grow(table, begin, end):
            for place in range(SIZE):
                if (source, place) in self.places:
                    self.places[target, place] = self.places[source, place]
        assert free - self.pool.free == wanted
        for i in range(begin, end):
            self.written += 1
            text.append(self.written)
            self.places[table[i // SIZE], i % SIZE] = self.written

    def fork(self, source: int, target: int, length: int) -> None:
        length = min(length, len(self.texts[source]))
        held = self.pool.hold(self.tables[source][: self.pool.count(length)])
        self.pool.release(self.tables[target])
        self.tables[target], self.texts[target] = held, self.texts[source][:length]

    def keep(self, row: int, length: int) -> None:
        length = min(length, len(self.texts[row]))
        pages = self.pool.hold(self.tables[row][: self.pool.count(length)])
        self.kept.append((pages, self.texts[row][:length]))

    def check(self) -> None:
        for table, text in [*zip(self.tables, self.texts, strict=True), *self.kept]:
            assert self.read(table, len(text)) == text
            assert NOBODY not in table
        holders = [page for table in [*self.tables, *(pages for pages, _ in self.kept)] for page in table]
        assert [self.pool.holders(page) for page in range(PAGES + 1)] == [
            holders.count(page) for page in range(PAGES + 1)
        ]
        assert self.pool.free == PAGES - len(set(holders))


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_every_row_and_kept_text_reads_what_it_wrote(steps):
    memory = Memory()
    for action, a, b, count in steps:
        row = a % ROWS
        if action == "write":
            memory.write(row, count % 8)
        elif action == "cut":  # what it has behind is written over, or let go
            del memory.texts[row][count:]
            if b % 2:
                memory.pool.trim(memory.tables[row], len(memory.texts[row]))
        elif action == "fork" and row != b % ROWS:
            memory.fork(row, b % ROWS, count)
        elif action == "keep":
            memory.keep(row, count)
        elif action == "drop" and memory.kept:
            memory.pool.release(memory.kept.pop(b % len(memory.kept))[0])
        memory.check()


def test_the_last_page_of_a_fork_is_copied_and_the_full_ones_are_not():
    pool = PagePool(10, 4)
    table: list[int] = []
    assert pool.grow(table, 0, 10) == []
    fork = pool.hold(table)
    copies = pool.grow(fork, 10, 13)
    assert copies == [(table[2], fork[2])]
    assert fork[:2] == table[:2]
    assert pool.free == 10 - 5
    assert pool.grow(table, 10, 12) == []  # its last page is its own again


def test_a_page_that_begins_where_a_row_writes_is_not_copied():
    pool = PagePool(4, 4)
    table: list[int] = []
    pool.grow(table, 0, 8)
    fork = pool.hold(table)
    assert pool.grow(fork, 4, 6) == []
    assert fork[0] == table[0]
    assert fork[1] != table[1]


def test_what_is_free_cannot_be_held_or_released():
    pool = PagePool(2, 4)
    page = pool.take()
    pool.release([page])
    with pytest.raises(ValueError, match="is free"):
        pool.release([page])
    with pytest.raises(ValueError, match="is free"):
        pool.hold([page])
