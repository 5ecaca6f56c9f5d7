"""Rows of a collection on disk while it runs: in memory are a few at a time, however many there are."""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.errors import UserError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_CACHE = 8 * 2**10  # KiB of memory that a database may have


class Rows(Protocol[T_co]):
    """As many as there are, again and again: a list, or :class:`SpooledRows`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


class Spool:
    """A database in a file without a name, on the disk that TMPDIR says; it is gone with the process.

    Texts go in as JSON: they may hold what is no UTF-8.

    Raises:
      UserError: by every call, where the disk is full.
    """

    def __init__(self, *tables: str) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        # Nothing in it has to outlive a crash.
        for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE}"):
            self.run(f"PRAGMA {setting}")
        for table in tables:
            self.run(f"CREATE TABLE {table}")

    def run(self, statement: str, *values: object) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise _cannot(error) from error

    def rows(self, statement: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """What a query gives, row by row."""
        cursor = self.run(statement, *values)
        try:
            yield from cursor
        except sqlite3.Error as error:
            raise _cannot(error) from error

    def value(self, statement: str, *values: object) -> Any:
        """The first value that a query gives."""
        return next(self.rows(statement, *values))[0]


def _cannot(error: sqlite3.Error) -> UserError:
    return UserError(f"temporary files of the collection (TMPDIR says where they are): {error}")


class SpooledRows(Generic[T]):
    """What a query gives, each row made into something when its turn comes."""

    def __init__(self, spool: Spool, statement: str, make: Callable[..., T]) -> None:
        self._spool, self._statement, self._make = spool, statement, make

    def __len__(self) -> int:
        return int(self._spool.value(f"SELECT COUNT(*) FROM ({self._statement})"))

    def __iter__(self) -> Iterator[T]:
        return (self._make(*row) for row in self._spool.rows(self._statement))


def count_distinct(texts: Iterable[str]) -> int:
    """How many different ones there are."""
    spool = Spool("text (digest BLOB PRIMARY KEY) WITHOUT ROWID")
    for text in texts:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        spool.run("INSERT OR IGNORE INTO text VALUES (?)", digest)
    return int(spool.value("SELECT COUNT(*) FROM text"))


class PrefixTable(Sequence[Prefix]):
    """Prefixes, each once, in the order of digests that tell them apart.

    Example:

        table = PrefixTable()
        table.add(b"digest", prefix)
        table.sort(limit=None)
        print(len(table), table[0])
    """

    def __init__(self) -> None:
        self._spool = Spool(
            "prefix (place INTEGER PRIMARY KEY, digest BLOB UNIQUE, content TEXT)",
            "chosen (number INTEGER PRIMARY KEY, place INTEGER)",
        )
        self._last: tuple[int, Prefix] | None = None
        self._count = 0

    def add(self, digest: bytes, prefix: Prefix) -> bool:
        """False: it is there already."""
        content = json.dumps([prefix.problem, prefix.steps, prefix.labels, prefix.source])
        into = "INSERT OR IGNORE INTO prefix (digest, content) VALUES (?, ?)"
        return self._spool.run(into, digest, content).rowcount == 1

    def sort(self, limit: int | None = None) -> int:
        """Nothing more comes. Returns: how many are beyond the limit, and not in the table."""
        order = "SELECT place FROM prefix ORDER BY digest LIMIT ?"
        self._spool.run(f"INSERT INTO chosen (place) {order}", -1 if limit is None else limit)
        self._count = int(self._spool.value("SELECT COUNT(*) FROM chosen"))
        return int(self._spool.value("SELECT COUNT(*) FROM prefix")) - self._count

    @functools.cached_property
    def digest(self) -> str:
        """Of all prefixes in their order."""
        found = hashlib.sha256()
        for (content,) in self._spool.rows(f"{_CONTENT} ORDER BY number"):
            found.update(content.encode() + b"\n")
        return found.hexdigest()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Prefix]:
        return (_prefix(content) for (content,) in self._spool.rows(f"{_CONTENT} ORDER BY number"))

    @overload
    def __getitem__(self, number: int) -> Prefix: ...
    @overload
    def __getitem__(self, number: slice) -> list[Prefix]: ...
    def __getitem__(self, number: int | slice) -> Prefix | list[Prefix]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        if self._last is None or self._last[0] != number:  # a prefix has several chains
            self._last = number, _prefix(self._spool.value(f"{_CONTENT} WHERE number = ?", number + 1))
        return self._last[1]


_CONTENT = "SELECT content FROM chosen JOIN prefix USING (place)"


def _prefix(content: str) -> Prefix:
    return Prefix(*json.loads(content))
