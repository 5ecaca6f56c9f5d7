"""Files of rows, of which each row is read when it is asked for: JSON Lines (also .gz and .zst), JSON with a list,
Parquet. What is held in memory does not grow with the rows, but for a list of JSON."""

from __future__ import annotations

import abc
import bisect
import contextlib
import gzip
import io
import math
import os
import shutil
import stat
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import IO, Any, Literal, Self

from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.paths import check_input
from thinkprm_jax.records.jsonl import WrittenNumber, parse_line
from thinkprm_jax.storage import Location, is_local, open_read
from thinkprm_jax.user_files import LFS_START, GivenTwice, check_whole, json_fault, parse_json

PACKED = (".gz", ".zst")
_LINES = (".jsonl", ".json", ".ndjson")
PARQUET = ".parquet"
# How the names of files of rows end.
SUFFIXES = (*_LINES, *(line + packed for line in _LINES for packed in PACKED), PARQUET)
_MARK_EVERY = 1024  # rows
_BATCH = 256  # rows of Parquet that are decoded together


def is_row_file(name: str | Location) -> bool:
    """Whether the name is one of a file of rows."""
    return str(name).lower().endswith(SUFFIXES)


class RowFile(abc.ABC):
    """The rows of a file by number, from 0; ``rows[i]`` is (place, value as the file has it), and ``place`` names
    it in messages (`rows.jsonl:12`). Rows in order come fastest.

    Example:

        with open_row_file("solutions.jsonl.zst") as rows:
            print(len(rows), rows[0])

    Raises:
      UserError: the file cannot be read, or the row that is asked for is none; names file and line.
    """

    path: str
    form: Literal["lines", "list", "table"] = "table"

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int, /) -> tuple[str, Any]: ...

    @property
    def marks(self) -> list[int]:
        """What the count of the rows has found, for :func:`open_row_file` to be spared it."""
        return [len(self)]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        """Closes the file."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_row_file(
    path: str | Location, marks: Sequence[int] | None = None, parse: Callable[[bytes, str], Any] = parse_line
) -> RowFile:
    """The rows of a file, of the kind that its name, or else its first character, says.

    Args:
      path: of the file, or a pipe, which is copied into a temporary file first.
      marks: of the same file, as it was found before: it is not read through to count its rows.
      parse: makes a row of a line; `UserError` where it is none.
    Raises:
      UserError: it cannot be read.
    """
    name = str(path)
    if name.lower().endswith(PARQUET):
        return ParquetRows(name)
    if not name.lower().endswith(PACKED):
        file = _open_for_seeking(name)
        with _closing_on_error(file):
            with reading(name):
                start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
                check_whole(start, name)
                file.seek(0)
            if start.startswith(b"["):
                with file:
                    return ListRows(name, file.read())
        return LineRows(name, lambda: file, seekable=True, marks=marks, parse=parse)
    return LineRows(name, lambda: _open_packed(name), seekable=False, marks=marks, parse=parse)


class LineRows(RowFile):
    """JSON Lines. In memory is where every 1,024th row begins; a packed file is read from its start to go back.

    Args:
      open: the file, unpacked; once for a file that is ``seekable``.
    """

    form = "lines"

    def __init__(
        self,
        path: str,
        open: Callable[[], IO[bytes]],
        seekable: bool,
        marks: Sequence[int] | None = None,
        parse: Callable[[bytes, str], Any] = parse_line,
    ) -> None:
        self.path, self._open, self._seekable, self._parse = path, open, seekable, parse
        self._file = open()
        self._starts, self._numbers = array("Q"), array("Q")  # of every marked row: byte, and lines before it
        self._next = self._number = 0  # the row that is read next, and how many lines are before it
        with _closing_on_error(self._file):
            if marks is None:
                self._count()
            else:
                self._rows, self._starts = marks[0], array("Q", marks[1::2])
                self._numbers = array("Q", marks[2::2])

    def _count(self) -> None:
        start = rows = number = 0
        with reading(self.path):
            for number, line in enumerate(self._file):  # bytes end their lines at a newline alone
                if line.strip():
                    if rows % _MARK_EVERY == 0:
                        self._starts.append(start)
                        self._numbers.append(number)
                    rows += 1
                start += len(line)
        self._rows = rows
        self._rewind(0)

    @property
    def marks(self) -> list[int]:
        return [self._rows, *(value for pair in zip(self._starts, self._numbers, strict=True) for value in pair)]

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int, /) -> tuple[str, Any]:
        if not 0 <= index < self._rows:
            raise IndexError(index)
        mark = index // _MARK_EVERY
        if index < self._next or (self._seekable and mark * _MARK_EVERY > self._next):
            self._rewind(mark if self._seekable else 0)
        with reading(self.path):
            while True:
                line = self._file.readline()
                if not line:
                    raise UserError(f"{self.path}: has fewer rows than a moment ago: something else writes it")
                self._number += 1
                if line.strip():
                    self._next += 1
                    if self._next > index:
                        break
        place = f"{self.path}:{self._number}"
        return place, self._parse(line, place)

    def _rewind(self, mark: int) -> None:
        """To a marked row."""
        self._next = mark * _MARK_EVERY
        self._number = self._numbers[mark] if mark < len(self._numbers) else 0
        if self._seekable:
            self._file.seek(self._starts[mark] if mark < len(self._starts) else 0)
        else:
            self._file.close()
            self._file = self._open()

    def close(self) -> None:
        self._file.close()


class ListRows(RowFile):
    """JSON with a list, which is held in memory."""

    form = "list"

    def __init__(self, path: str, content: bytes) -> None:
        self.path = path
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
        with reading(path):
            try:
                rows = parse_json(text, parse_float=WrittenNumber)
            except GivenTwice as error:
                raise UserError(f"{path}:{error.line}: {error}") from error
            except (ValueError, RecursionError) as error:
                line = getattr(error, "lineno", 1)
                raise UserError(f"{path}:{line}: not JSON: {getattr(error, 'msg', json_fault(error))}") from error
        self._list: list[Any] = rows

    def __len__(self) -> int:
        return len(self._list)

    def __getitem__(self, index: int, /) -> tuple[str, Any]:
        return f"{self.path}: item {index + 1}", self._list[index]


class ParquetRows(RowFile):
    """Parquet, read in batches; of a row group as much as a batch needs."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UserError(f"{path}: reading parquet needs the package pyarrow: pip install pyarrow") from error
        # ValueError: dates that Python does not have.
        self._failures: tuple[type[Exception], ...] = (OSError, ValueError, OverflowError, pyarrow.ArrowException)
        self._stream = _open_read(path)
        with _closing_on_error(self._stream):
            with reading(path):
                check_whole(self._stream.read(len(LFS_START)), path)
            try:
                # Without these, a column of a whole row group is held, however large it is.
                self._file = parquet.ParquetFile(self._stream, pre_buffer=False, buffer_size=1 << 20)
            except UserError:
                raise
            except self._failures as error:
                raise self._unreadable(error) from error
        found = self._file.metadata
        self._ends = array("Q")  # of the row groups
        for group in range(found.num_row_groups):
            self._ends.append((self._ends[-1] if self._ends else 0) + found.row_group(group).num_rows)
        self._batches: Iterator[Any] | None = None
        self._held: list[Any] = []
        self._first = 0  # of the rows that are held

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: cannot be read: {' '.join(str(error).split())}")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int, /) -> tuple[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = bisect.bisect_right(self._ends, index)
        start = self._ends[group - 1] if group else 0
        behind = self._first + len(self._held)
        if self._batches is None or index < self._first or (index >= behind and start > behind):
            self._batches = self._file.iter_batches(_BATCH, row_groups=range(group, len(self._ends)))
            self._first, self._held = start, []
        place = f"{self.path}: row {index + 1}"
        try:
            while index >= self._first + len(self._held):
                self._first += len(self._held)
                self._held = next(self._batches).to_pylist()
        except UserError:
            raise
        except self._failures as error:
            raise UserError(f"{place}: cannot be read: {' '.join(str(error).split())}") from error
        return place, self._held[index - self._first]

    def close(self) -> None:
        self._file.close()
        self._stream.close()


def plain_value(value: Any, place: str, name: str = "") -> Any:
    """A value of a table as JSON has it: dates, times and decimals as text, NaN (there is nothing) as null.

    Raises:
      UserError: it has no form in JSON (bytes, images); names the field.
    """
    if isinstance(value, float):
        if math.isinf(value):
            raise UserError(f"{place}: the field `{name}` is {value}, which is no number of JSON; write null")
        return None if math.isnan(value) else value
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {
            str(key): plain_value(item, place, f"{name}.{key}" if name else str(key))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_value(item, place, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, (date, time, timedelta, Decimal)):  # a datetime is a date
        return str(value)
    kind = type(value).__name__
    raise UserError(f"{place}: the field `{name}` holds {kind}, which is no JSON: leave the column out")


def _open_read(path: str, pipes: bool = False) -> IO[bytes]:
    if is_local(path):
        check_input(path, pipes)
    with reading(path):
        return open_read(path)


def _open_for_seeking(path: str) -> IO[bytes]:
    file = _open_read(path, pipes=True)
    if not is_local(path):
        return file
    with _closing_on_error(file):
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(file, copy)
        copy.seek(0)
    file.close()
    return copy


def _open_packed(path: str) -> IO[bytes]:
    """A stream of what a file of gzip or zstd holds."""
    file = _open_read(path, pipes=True)
    with reading(path), _closing_on_error(file):
        if path.lower().endswith(".gz"):
            return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
        import pyarrow  # zstd, which Python has from 3.14 on

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file), "zstd"), 1 << 20)


@contextlib.contextmanager
def _closing_on_error(file: IO[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.close()
        raise
