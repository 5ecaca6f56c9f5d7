"""JSON Lines in, and JSON Lines out in the order of the inputs from results that finish in any order."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from thinkprm_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def iterate_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every line that is not blank, line by line; place is `file:line`, for error messages.

    Raises:
      UserError: the file cannot be read, or a line is no JSON object; names file and line.
    """
    try:
        with open(path, "rb") as file:  # bytes end their lines at a newline alone
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield f"{path}:{number}", _parse_line(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def _parse_line(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 (byte {error.start + 1} of the line)") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UserError(f"{place}: a line must be a JSON object, this is {type_name(row)}")
    return row


def read_rows(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """:func:`iterate_rows` as a list; `UserError` also where there is no row."""
    rows = list(iterate_rows(path))
    if not rows:
        raise UserError(f"{path}: no rows in it")
    return rows


def get_field(row: Mapping[str, Any], name: str, kind: type, place: str, prefix: str = "") -> Any:
    """row[name], of a ``kind`` of JSON (or object: any); `UserError` with place and field where it is not.

    ``prefix``: of the name in messages, for a row inside a row.
    """
    if name not in row:
        raise UserError(f"{place}: the field `{prefix}{name}` is missing")
    return _require(row[name], kind, _KINDS.get(kind, ""), f"{prefix}{name}", place)


def get_texts(row: Mapping[str, Any], name: str, place: str) -> list[str]:
    """row[name], a list of texts; `UserError` with place and field where it is not."""
    values = _require(get_field(row, name, object, place), list, "a list of texts", name, place)
    return [_require(value, str, "a text", f"{name}[{index}]", place) for index, value in enumerate(values)]


def _require(value: Any, kind: type, wanted: str, name: str, place: str) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{place}: the field `{name}` must be {wanted}, it is {type_name(value)}")
    return value


def write_line(row: Mapping[str, Any]) -> bytes:
    """One line of JSON in UTF-8; lone surrogates, which have no UTF-8, as escapes."""
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode() + b"\n"


def type_name(value: Any) -> str:
    """What JSON calls it."""
    return _KINDS.get(type(value), "a number")


_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


class OrderedOutput:
    """Rows `{**input, **result, **stamp}`, one for each input, in input order, appended and flushed as they come.

        FILE            the rows so far
        FILE.waiting    rows that are finished before their turn; gone when all is done

    A run that was killed at any moment goes on from these two: what is written is neither lost nor done again. A
    half-written last line is dropped. Rows of other inputs or with another stamp are refused, as is a file that is
    not ours; nothing is changed then.

    Args:
      path: None: no files, only the order.
      inputs: the rows that come in.
      stamp: fields that say how the results are made (settings).
    Raises:
      UserError: the file cannot be used.
    """

    def __init__(self, path: Path | None, inputs: Sequence[Mapping[str, Any]], stamp: Mapping[str, Any]) -> None:
        self._inputs = inputs
        self._stamp = dict(stamp)
        self._early: dict[int, dict[str, Any]] = {}
        self._next = 0
        self.resumed: list[dict[str, Any]] = []  # rows that were there already, those out of turn included
        self._files: list[BinaryIO] = []
        if path is None:
            return
        self._waiting_path = path.with_name(path.name + ".waiting")
        self._files = [_open_alone(path), _open_alone(self._waiting_path)]
        try:
            rows, size = self._load(path)
            early, waiting_size = self._load_early()
        except UserError:
            self.close()
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

    def add(self, index: int, result: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
        """Takes in the result of an input; returns (index, row) of those whose turn has come, in order."""
        row = {**self._inputs[index], **result, **self._stamp}
        if index != self._next and self._files:
            _append(self._files[1], {"index": index, "row": row})
        self._early[index] = row
        return self._take_turns()

    def _take_turns(self) -> list[tuple[int, dict[str, Any]]]:
        rows = []
        while self._next in self._early:
            row = self._early.pop(self._next)
            if self._files:
                _append(self._files[0], row)
            rows.append((self._next, row))
            self._next += 1
        return rows

    def close(self) -> None:
        if self._files and (self._next == len(self._inputs) or not self._files[1].tell()):
            self._waiting_path.unlink(missing_ok=True)
        for file in self._files:
            file.close()
        self._files = []

    def __enter__(self) -> OrderedOutput:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _load(self, path: Path) -> tuple[list[dict[str, Any]], int]:
        """(rows, bytes they take) of an output file; what follows them is a half-written line."""
        data = _read_bytes(path)
        rows: list[dict[str, Any]] = []
        size = 0
        for place, line, is_complete in _lines(path, data):
            if len(rows) == len(self._inputs):
                raise UserError(f"{path}: has more rows than the input; give another output file")
            start = write_line(self._inputs[len(rows)])[:-2]  # without the brace that closes it
            if not is_complete and line != start + b"}" and line[: len(start)] == start[: len(line)]:
                break
            row = _parse(place, line)
            self._check(place, len(rows), row)
            if not is_complete:
                break
            rows.append(row)
            size += len(line)
        return rows, size

    def _load_early(self) -> tuple[dict[int, dict[str, Any]], int]:
        early: dict[int, dict[str, Any]] = {}
        size = 0
        for place, line, is_complete in _lines(self._waiting_path, _read_bytes(self._waiting_path)):
            if not is_complete:
                break
            entry = _parse(place, line)
            index, row = entry.get("index"), entry.get("row")
            if not isinstance(index, int) or not 0 <= index < len(self._inputs) or not isinstance(row, dict):
                raise UserError(f"{place}: belongs to another input; remove the file or give another output file")
            self._check(place, index, row)
            early[index] = row
            size += len(line)
        return early, size

    def _check(self, place: str, index: int, row: Mapping[str, Any]) -> None:
        """The row is one that this run would write."""
        for name, settings in self._stamp.items():
            written = row.get(name)
            if not isinstance(written, dict):
                raise UserError(f"{place}: no output of this program; give another output file")
            for key in {**settings, **written}:
                if written.get(key) != settings.get(key):
                    raise UserError(
                        f"{place}: made with {key} {written.get(key)}, this run has {settings.get(key)}; "
                        "use the same settings, or give another output file"
                    )
        echoed = {key: row.get(key) for key in self._inputs[index]}
        if write_line(echoed) != write_line(self._inputs[index]):
            raise UserError(f"{place}: made from another input (row {index + 1}); give another output file")


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
