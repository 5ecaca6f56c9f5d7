"""Rows from wherever people have them, as one sequence: a file, several, a folder, a data set; and parts of it."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.datasets import find_files, load_dataset
from thinkprm_jax.records.jsonl import check_finite, parse_line
from thinkprm_jax.records.row_files import RowFile, open_row_file, plain_value


@dataclass(frozen=True)
class Part:
    """Which rows of a source are meant.

    Attributes:
      start, end: the first row, from 0, and the one behind the last; None: to the end.
      shard: (i, n): of these rows the i-th of n parts of equal length, from 0.
    """

    start: int = 0
    end: int | None = None
    shard: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.start < 0:
            raise UserError(f"start is {self.start}, it must be 0 or more")
        if self.end is not None and self.end <= self.start:
            raise UserError(f"end is {self.end}, it must be more than start, which is {self.start}")
        if self.shard is not None and not 0 <= self.shard[0] < self.shard[1]:
            raise UserError(f"shard {self.shard[0]}/{self.shard[1]}: shards of n are 0 to n - 1")

    def rows(self, count: int, source: str) -> range:
        """Of so many rows those that are meant. `UserError` where there are none."""
        end = count if self.end is None else min(self.end, count)
        if self.start >= end:
            raise UserError(f"{source}: has {count:,} rows, and start is {self.start}")
        rows = range(self.start, end)
        return rows if self.shard is None else split_rows(rows, self.shard[1])[self.shard[0]]


ALL_ROWS = Part()


def split_rows(rows: range, parts: int) -> list[range]:
    """Parts of equal length, the first ones a row longer where they do not divide; empty where rows are few."""
    size, more = divmod(len(rows), parts)
    starts = [rows.start + part * size + min(part, more) for part in range(parts + 1)]
    return [range(start, end) for start, end in itertools.pairwise(starts)]


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8` of a command line."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise UserError(f"shard {text!r}: it must be i/N, such as 0/8")
    return int(found[1]), int(found[2])


class TableRows(RowFile):
    """A table that `datasets` has loaded, which lies on disk."""

    def __init__(self, source: str, table: Any) -> None:
        self.path, self._table = source, table

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int, /) -> tuple[str, Any]:
        return f"{self.path}: row {index + 1}", self._table[index]


class RowSource:
    """The rows of all files of a source, one behind the other; ``rows[i]`` is (place, value as it is there).

    Example:

        with RowSource("solutions/*.parquet") as rows:
            for place, row in rows:
                print(place, row["problem"])

    Args:
      source: a file of JSON Lines (also .gz and .zst), JSON with a list or Parquet; a pattern of such files; a
        folder of them, or as `datasets` saves it; the id of a data set on the Hugging Face Hub.
      split, config: of a folder or data set that has several.
      parse: see :func:`thinkprm_jax.records.row_files.open_row_file`.
      known: :attr:`known` of the same files, found before: they are not read through to count their rows.
    Raises:
      UserError: it cannot be read, or holds no rows.

    Attributes:
      files: None of a data set. fingerprint: of a data set.
    """

    def __init__(
        self,
        source: str,
        split: str = "train",
        config: str | None = None,
        parse: Callable[[bytes, str], Any] = parse_line,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        self.source, self._parse = source, parse
        self.files = find_files(source)
        self._open: tuple[int, RowFile] | None = None
        self._marks: list[Sequence[int]] = []
        table = None
        if self.files is None:
            found = load_dataset(source, split, config)
            self.files, table = (list(found), None) if isinstance(found, tuple) else (None, found)
        self.fingerprint: str | None = getattr(table, "_fingerprint", None)
        if self.files is None:
            self._open = 0, TableRows(source, table)
            self._marks = [self._open[1].marks]
        elif known is not None and known.get("files") == self.files:
            self._marks = list(known["marks"])
        else:
            self._count(self.files)
        self._ends: list[int] = []
        for marks in self._marks:
            self._ends.append((self._ends[-1] if self._ends else 0) + marks[0])
        if not len(self):
            self.close()
            raise UserError(f"{source}: no rows in it")

    def _count(self, files: Sequence[str]) -> None:
        for number, file in enumerate(files):
            self.close()
            rows = open_row_file(file, parse=self._parse)
            self._open = number, rows
            self._marks.append(rows.marks)

    @property
    def known(self) -> dict[str, Any] | None:
        """What counting the rows has found, as JSON; None of a data set."""
        return None if self.files is None else {"files": self.files, "marks": self._marks}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int, /) -> tuple[str, Any]:
        number = bisect.bisect_right(self._ends, index)
        if index < 0 or number == len(self._ends):
            raise IndexError(index)
        if self._open is None or self._open[0] != number:
            self.close()
            assert self.files is not None
            self._open = number, open_row_file(self.files[number], self._marks[number], self._parse)
        return self._open[1][index - (self._ends[number - 1] if number else 0)]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return (self[index] for index in range(len(self)))

    def json_row(self, index: int) -> tuple[str, Any]:
        """The same as it can be written again as JSON; what ``parse`` has made of a line stays as it is.

        Raises:
          UserError: something in it is no JSON; names the field.
        """
        place, value = self[index]
        assert self._open is not None
        form = self._open[1].form
        if form == "list":
            check_finite(value, place)
        return place, plain_value(value, place) if form == "table" else value

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
