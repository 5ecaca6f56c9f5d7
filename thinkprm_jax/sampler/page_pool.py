"""Which pages of the cache are free, and who holds the others. Host code, no arrays.

A row's table is a list of pages, in the order of its text; a list holds each of its pages once, and so does a
block of the prefix cache. Rows that begin alike hold the same pages. Whoever is about to write to a page that
others hold as well gets one of its own for it: a copy, where it holds tokens of the row already.
"""

from __future__ import annotations

from collections.abc import Iterable

NOBODY = 0  # the page that is never given out


class PagePool:
    """Pages 1 to ``pages``, of ``size`` positions each.

    Attributes:
      pages, size: as given.
    """

    def __init__(self, pages: int, size: int) -> None:
        self.pages, self.size = pages, size
        self._free = list(range(pages, 0, -1))  # the first ones first
        self._holders = [0] * (pages + 1)

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def holders(self, page: int) -> int:
        """How many hold it."""
        return self._holders[page]

    def count(self, positions: int) -> int:
        """Pages of a row of so many positions."""
        return -(-positions // self.size)

    def take(self) -> int:
        """A free page. IndexError: there is none."""
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def hold(self, pages: Iterable[int]) -> list[int]:
        """The same pages, held once more."""
        held = list(pages)
        for page in held:
            if not self._holders[page]:
                raise ValueError(f"page {page} is free")
            self._holders[page] += 1
        return held

    def release(self, pages: Iterable[int]) -> None:
        """Pages that are held once less; who holds them no more frees them."""
        for page in pages:
            if not self._holders[page]:
                raise ValueError(f"page {page} is free")
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)

    def trim(self, table: list[int], positions: int) -> None:
        """Lets go of a row's pages behind its first so many positions."""
        kept = self.count(positions)
        self.release(table[kept:])
        del table[kept:]

    def wanted(self, table: list[int], begin: int, end: int) -> int:
        """Free pages that it takes to write positions ``begin`` to ``end`` of a row (:meth:`grow`)."""
        if begin >= end:
            return 0
        shared = sum(self._holders[page] > 1 for page in table[begin // self.size : self.count(end)])
        return shared + max(self.count(end) - len(table), 0)

    def grow(self, table: list[int], begin: int, end: int) -> list[tuple[int, int]]:
        """Makes a row's pages such that positions ``begin`` to ``end`` are its own to write; its first ``begin``
        positions stay.

        Returns: (from, to): pages to be copied before anything is written, in this order.
        Raises:
          IndexError: too few are free (:meth:`wanted`); then nothing was changed.
        """
        if self.wanted(table, begin, end) > self.free:
            raise IndexError("too few pages are free")
        copies: list[tuple[int, int]] = []
        if begin >= end:
            return copies
        first = begin // self.size
        for place in range(first, min(self.count(end), len(table))):
            old = table[place]
            if self._holders[old] > 1:
                table[place] = self.take()
                self.release([old])
                if place == first and begin % self.size:
                    copies.append((old, table[place]))
        while len(table) < self.count(end):
            table.append(self.take())
        return copies
