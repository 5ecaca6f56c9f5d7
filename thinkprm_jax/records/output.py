"""JSON Lines out in the order of the inputs, from results that finish in any order."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.files import atomic_write
from thinkprm_jax.records.jsonl import write_line
from thinkprm_jax.records.schema import Row

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Kind = TypeVar("Kind", bound=Row)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """A file of these rows, whole or not there at all.

    Raises:
      UserError: it cannot be written.
    """
    atomic_write(path, b"".join(write_line(row.to_dict()) for row in rows))


def has_rows(path: Path) -> bool:
    """Whether a run has written a row to this file, or one that waits for its turn beside it."""
    return any(file.exists() and file.stat().st_size for file in (path, _waiting(path)))


def _waiting(path: Path) -> Path:
    return path.with_name(f"{path.name}.waiting")


class OrderedOutput(Generic[Kind]):
    """Rows of one class, one for each input, in input order, appended and flushed as they come.

        FILE            the rows so far
        FILE.waiting    rows that are finished before their turn; gone when none is left

    A run that was killed at any moment goes on from these two: what is written is neither lost nor done again. A
    half-written last line is dropped. Rows of other inputs or with another stamp are refused, as is a file that is
    not ours; nothing is changed then. Rows of an older version stay as they are, and those of this version follow.

    Args:
      path: None: no files, only the order.
      kind: the class of the rows.
      inputs: the fields with which each of them begins in the file.
      stamp: fields, which all rows have, that say how the results are made (settings).
      current: such settings of an older version, as this one writes them.
    Raises:
      UserError: the file cannot be used.
    """

    def __init__(
        self,
        path: Path | None,
        kind: type[Kind],
        inputs: Sequence[Mapping[str, Any]],
        stamp: Mapping[str, Mapping[str, Any]],
        current: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        self._kind, self._inputs, self._stamp, self._current = kind, inputs, stamp, current
        self._early: dict[int, Kind] = {}
        self._next = 0
        self.resumed: list[Kind] = []  # rows that were there already, those out of turn included
        self._files: list[BinaryIO] = []
        if path is None:
            return
        self._waiting_path = _waiting(path)
        self._files = [_open_alone(path), _open_alone(self._waiting_path)]
        try:
            rows, size = self._load(path)
            early, waiting_size = self._load_early()
        except UserError:
            self._close(nothing_waits=not self._files[1].tell())
            raise
        self._files[0].truncate(size)
        self._files[1].truncate(waiting_size)
        self._next = len(rows)
        self._early = {index: row for index, row in early.items() if index >= self._next}
        self.resumed = [*rows, *self._early.values()]
        self._take_turns()

    @property
    def missing(self) -> list[int]:
        """Indexes of the inputs that have no row yet."""
        return [index for index in range(self._next, len(self._inputs)) if index not in self._early]

    def add(self, index: int, row: Kind) -> list[tuple[int, Kind]]:
        """Takes in the row of an input; returns (index, row) of those whose turn has come, in order."""
        if index != self._next and self._files:
            _append(self._files[1], {"index": index, "row": row.to_dict()})
        self._early[index] = row
        return self._take_turns()

    def _take_turns(self) -> list[tuple[int, Kind]]:
        rows = []
        while self._next in self._early:
            row = self._early.pop(self._next)
            if self._files:
                _append(self._files[0], row.to_dict())
            rows.append((self._next, row))
            self._next += 1
        return rows

    def close(self) -> None:
        self._close(nothing_waits=not self._early)

    def _close(self, nothing_waits: bool) -> None:
        if self._files and nothing_waits:
            self._waiting_path.unlink(missing_ok=True)
        for file in self._files:
            file.close()
        self._files = []

    def __enter__(self) -> OrderedOutput[Kind]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _load(self, path: Path) -> tuple[list[Kind], int]:
        """(rows, bytes they take) of an output file; what follows them is a half-written line."""
        data = _read_bytes(path)
        rows: list[Kind] = []
        size = 0
        for place, line, is_complete in _lines(path, data):
            if len(rows) == len(self._inputs):
                raise UserError(f"{path}: has more rows than the input; give another output file")
            start = write_line(self._inputs[len(rows)])[:-2]  # without the brace that closes it
            if not is_complete and line != start + b"}" and line[: len(start)] == start[: len(line)]:
                break
            row = self._read(_parse(place, line), len(rows), place)
            if not is_complete:
                break
            rows.append(row)
            size += len(line)
        return rows, size

    def _load_early(self) -> tuple[dict[int, Kind], int]:
        early: dict[int, Kind] = {}
        size = 0
        for place, line, is_complete in _lines(self._waiting_path, _read_bytes(self._waiting_path)):
            if not is_complete:
                break
            entry = _parse(place, line)
            index, row = entry.get("index"), entry.get("row")
            if not isinstance(index, int) or not 0 <= index < len(self._inputs) or not isinstance(row, dict):
                raise UserError(f"{place}: belongs to another input; remove the file or give another output file")
            early[index] = self._read(row, index, place)
            size += len(line)
        return early, size

    def _read(self, row: Mapping[str, Any], index: int, place: str) -> Kind:
        """A row of the file, which must be one that this run would write."""
        for name, settings in self._stamp.items():
            written = row.get(name)
            if not isinstance(written, dict):
                raise UserError(f"{place}: no output of this program; give another output file")
            theirs, ours = self._current(written), self._current(settings)
            for key in {**ours, **theirs}:
                if theirs.get(key) != ours.get(key):
                    raise UserError(
                        f"{place}: made with {key} {theirs.get(key)}, this run has {ours.get(key)}; "
                        "use the same settings, or give another output file"
                    )
        echoed = {key: row.get(key) for key in self._inputs[index]}
        if write_line(echoed) != write_line(self._inputs[index]):
            raise UserError(f"{place}: made from another input (row {index + 1}); give another output file")
        return self._kind.from_dict(row, place)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def _lines(path: Path, data: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """(place, line with its newline, whether it has one)."""
    for number, line in enumerate(io.BytesIO(data), start=1):  # bytes end their lines at a newline alone
        yield f"{path}:{number}", line, line.endswith(b"\n")


def _parse(place: str, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: no output of this program; give another output file") from error
    if not isinstance(row, dict):
        raise UserError(f"{place}: no output of this program; give another output file")
    return row


def _open_alone(path: Path) -> BinaryIO:
    """For appending; UserError if another run has it open."""
    try:
        file = open(path, "ab")  # noqa: SIM115 (stays open for the run)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path}: another run is writing it") from error
        except OSError:  # a file system without locks
            pass
    return file


def _append(file: BinaryIO, row: Mapping[str, Any]) -> None:
    file.write(write_line(row))
    file.flush()
