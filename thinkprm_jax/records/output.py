"""JSON Lines out in the order of the inputs, from results that finish in any order."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.files import LineFile, has_lines, remove_lines, write_lines, write_lines_whole
from thinkprm_jax.records.jsonl import write_line
from thinkprm_jax.records.output_index import OutputIndex
from thinkprm_jax.records.schema import FINGERPRINTS, Row, optional_fields
from thinkprm_jax.storage import Location

Kind = TypeVar("Kind", bound=Row)
_WAITING_BYTES = 16 * 2**20  # of the file of waiting rows; then those that have had their turn leave it


def write_rows(path: Location, rows: Iterable[Row]) -> None:
    """A file of these rows, whole or not there at all; they are taken one by one.

    Raises:
      UserError: it cannot be written.
    """
    write_lines_whole(path, (write_line(row.to_dict()) for row in rows))


def has_rows(path: Location) -> bool:
    """Whether a run has written a row to this file, or one that waits for its turn beside it."""
    return any(has_lines(file) for file in (path, _waiting(path)))


def _waiting(path: Location) -> Location:
    return path.with_name(f"{path.name}.waiting")


class Inputs(Protocol):
    """The fields with which the rows of an output begin, one mapping a row: a list, or :class:`LazyInputs`.

    Where there is a method ``identity``, it says in JSON what tells them from others, and an index of the output
    is kept (:mod:`thinkprm_jax.records.output_index`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class LazyInputs:
    """Inputs that are made when they are asked for, and not kept.

    count: of them. make: the one with an index. named: what :meth:`identity` gives, where there is something.
    """

    count: int
    make: Callable[[int], Mapping[str, Any]]
    named: Callable[[], Any] = lambda: None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return self.make(index)

    def identity(self) -> Any:
        """In JSON, what tells these inputs from others; None where nothing does."""
        return self.named()

    @classmethod
    def digested(cls, count: int, make: Callable[[int], Mapping[str, Any]]) -> LazyInputs:
        """Whose identity is a digest of all of them, made once, when somebody asks for it."""

        @functools.cache
        def named() -> dict[str, str]:
            found = hashlib.sha256()
            for index in range(count):
                found.update(write_line(make(index)))
            return {"digest": found.hexdigest()}

        return cls(count, make, named)


class Missing(Sequence[int]):
    """Indexes without a row, in order: from ``start`` on, but those that are ``there``."""

    def __init__(self, start: int, count: int, there: Collection[int]) -> None:
        self._start, self._count, self._there = start, count, frozenset(there)

    def __len__(self) -> int:
        return self._count - self._start - len(self._there)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self._start <= index < self._count and index not in self._there

    def __iter__(self) -> Iterator[int]:
        return (index for index in range(self._start, self._count) if index not in self._there)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            return list(self)[place]
        return next(itertools.islice(self, place, None)) if place >= 0 else list(self)[place]

    def __eq__(self, other: object) -> bool:
        return list(self) == other


class OrderedOutput(Generic[Kind]):
    """Rows of one class, one for each input, in input order, appended as they come.

        FILE            the rows so far
        FILE.waiting    rows that are finished before their turn; gone when none is left

    A run that was stopped at any moment, by kill -9 or a full disk, goes on from these two: what is written is
    neither lost nor done again. A half-written last line is dropped. Rows of other inputs or with another stamp
    are refused, as is a file that is not ours; nothing is changed then. Rows of an older version stay as they are,
    and those of this version follow. In memory are only rows before their turn.

    Beside a file of some megabytes stands `FILE.index`, with which a run goes on without reading the file, where
    the inputs can be told from others and nobody asks for the rows: :mod:`thinkprm_jax.records.output_index`.

    Args:
      path: None: no files, only the order.
      kind: the class of the rows.
      inputs: the fields with which each of them begins in the file.
      stamp: fields, which all rows have, that say how the results are made (settings). Of the files of models
        (``FINGERPRINTS`` in ``kind.MADE_BY``) it says nothing: see :meth:`check_models`.
      current: such settings of an older version, as this one writes them.
      on_resumed: is given every row that is there already, those out of turn included.
      tally: counts something in a row.
    Raises:
      UserError: the file cannot be used.

    Attributes:
      resumed: how many rows were there already. counts: what ``tally`` has counted in those.
    """

    def __init__(
        self,
        path: Location | None,
        kind: type[Kind],
        inputs: Inputs,
        stamp: Mapping[str, Mapping[str, Any]],
        current: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
        on_resumed: Callable[[Kind], object] | None = None,
        tally: Callable[[Kind], Mapping[str, int]] = lambda row: {},
    ) -> None:
        self._kind, self._inputs, self._stamp, self._current = kind, inputs, stamp, current
        self._on_resumed, self._tally = on_resumed, tally
        self.counts: Counter[str] = Counter()
        self._index: OutputIndex | None = None
        self._indexed: set[tuple[str, str, str]] = set()  # fingerprints that the index has
        self._waiting_bytes = 0
        self._made_by: dict[tuple[str, str, str], str] = {}  # (model, name, fingerprint) -> where it stands first
        self._early: dict[int, Kind] = {}
        self._next = self.resumed = 0
        self._loaded = False
        self._files: list[LineFile] = []
        if path is None:
            return
        self._files = [LineFile(path)]
        try:
            self._files.append(LineFile(_waiting(path)))
            self._index = self._open_index(path)
            size = self._load(path)
            waiting_size = self._load_early()
        except BaseException:
            self.close()
            raise
        self._files[0].cut(size)
        self._files[1].cut(waiting_size)
        self._waiting_bytes = waiting_size
        if self._index is not None:
            self._index.begin()
        self._loaded = True
        self._take_turns()

    @property
    def missing(self) -> Missing:
        """Indexes of the inputs that have no row at this moment."""
        return Missing(self._next, len(self._inputs), self._early)

    def check_models(self, **fields: Mapping[str, Any]) -> None:
        """Before the first new row: UserError where rows that are there were made by models with other files of
        the same name.

        Args:
          fields: of the rows to come, such as ``verifier=verifier.settings.stamp``. Rows from before there were
            fingerprints pass.
        """
        for (made_by, name, theirs), place in self._made_by.items():
            ours = _inner(fields, made_by).get(name)
            if ours is not None and theirs != ours:
                raise other_model(place, made_by, name, theirs, ours)

    def add(self, index: int, row: Kind) -> list[tuple[int, Kind]]:
        """Takes in the row of an input; returns (index, row) of those whose turn has come, in order.

        Raises:
          UserError: the file cannot be written, since the disk is full, say; both files are whole.
        """
        self._early[index] = row
        if index != self._next and self._files:
            line = write_line({"index": index, "row": row.to_dict()})
            self._files[1].append(line)
            self._waiting_bytes += len(line)
        return self._take_turns()

    def _take_turns(self) -> list[tuple[int, Kind]]:
        rows = []
        while self._next in self._early:
            row = self._early[self._next]
            if self._files:
                content = row.to_dict()
                line = write_line(content)
                self._files[0].append(line)
                self._note(line, row, content)
            del self._early[self._next]  # not before it is written: whoever is stopped here closes the files
            rows.append((self._next, row))
            self._next += 1
        if self._files and self._waiting_bytes > _WAITING_BYTES and isinstance(self._files[0].path, Path):
            self._shorten_waiting()
        return rows

    def _note(self, line: bytes, row: Kind, content: Mapping[str, Any]) -> None:
        """In the index: the row of the next line."""
        if self._index is None:
            return
        new = [found for found in fingerprints_of(self._kind, content) if found not in self._indexed]
        self._indexed.update(new)
        self._index.add(line, self._tally(row), [(*found, self._next + 1) for found in new])

    def _shorten_waiting(self) -> None:
        """Takes out of the file of waiting rows those that have had their turn, which a long run has many of."""
        waits = {index: write_line({"index": index, "row": row.to_dict()}) for index, row in self._early.items()}
        left = sum(map(len, waits.values()))
        if 2 * left > self._waiting_bytes:
            return
        path = self._files[1].path
        self._files[1].close()
        write_lines(path, waits.values())
        self._files[1] = LineFile(path)
        self._waiting_bytes = left

    def close(self) -> None:
        files, self._files = self._files, []
        if len(files) == 2 and self._loaded and not self._early:
            files.pop().remove()
        if self._loaded and self._next == len(self._inputs):
            for file in files:
                file.seal()
        for file in files:
            file.close()
        index, self._index = self._index, None
        if index is not None and self._loaded:
            index.close()
        if len(files) == 2 and not has_lines(files[1].path):
            remove_lines(files[1].path)

    def __enter__(self) -> OrderedOutput[Kind]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _load(self, path: Location) -> int:
        """Takes up the rows of an output file; returns the bytes they take. What follows them is a half-written
        line."""
        size = self._resume_known(path)
        for place, line, is_complete in _lines(self._files[0], size, self._next + 1):
            if self._next == len(self._inputs):
                raise UserError(f"{path}: has more rows than the input; give another output file")
            given = self._inputs[self._next]
            start = write_line(given)[:-2]  # without the brace that closes it
            if not is_complete and line != start + b"}" and line[: len(start)] == start[: len(line)]:
                break
            content = _parse(place, line)
            row = self._read(content, self._next, given, place)
            if not is_complete:
                break
            self._resume(row)
            self._note(line, row, content)
            self._next += 1
            size += len(line)
        return size

    def _open_index(self, path: Location) -> OutputIndex | None:
        """None where every row is asked for, or nothing says whose rows these are."""
        identity = getattr(self._inputs, "identity", lambda: None)
        if self._on_resumed is not None or not isinstance(path, Path):
            return None
        stamp = {
            name: {
                key: value
                for key, value in self._current(settings).items()
                if key not in FINGERPRINTS or name not in self._kind.MADE_BY
            }
            for name, settings in self._stamp.items()
        }
        rows = f"{self._kind.FORMAT}/{self._kind.VERSION}"
        return OutputIndex(path, lambda: {"rows": rows, "stamp": stamp, "inputs": identity()})

    def _resume_known(self, path: Location) -> int:
        """Takes up the rows that need not be read; returns the bytes they take."""
        index = self._index
        if index is None or not index.resume():
            return 0
        if index.known.rows > len(self._inputs):
            raise UserError(f"{path}: has more rows than the input; give another output file")
        self._next = self.resumed = index.known.rows
        self.counts.update(index.counts)
        for made_by, name, found, line in index.made_by:
            self._indexed.add((made_by, name, found))
            self._made_by.setdefault((made_by, name, found), f"{path}:{line}")
        return index.known.size

    def _load_early(self) -> int:
        size = 0
        for place, line, is_complete in _lines(self._files[1]):
            if not is_complete:
                break
            entry = _parse(place, line)
            index, row = entry.get("index"), entry.get("row")
            if not isinstance(index, int) or not 0 <= index < len(self._inputs) or not isinstance(row, dict):
                raise UserError(f"{place}: belongs to another input; remove the file or give another output file")
            early = self._read(row, index, self._inputs[index], place)
            if index >= self._next:
                self._early[index] = early
            size += len(line)
        for early in self._early.values():
            self._resume(early)
        return size

    def _resume(self, row: Kind) -> None:
        self.resumed += 1
        self.counts.update(self._tally(row))
        if self._on_resumed is not None:
            self._on_resumed(row)

    def _read(self, row: dict[str, Any], index: int, given: Mapping[str, Any], place: str) -> Kind:
        """A row of the file, which must be one that this run would write."""
        for found in fingerprints_of(self._kind, row):
            self._made_by.setdefault(found, place)
        for name, settings in self._stamp.items():
            written = row.get(name)
            if written is None and name in optional_fields(self._kind):
                continue  # of a version that did not write it yet
            if not isinstance(written, dict):
                raise UserError(f"{place}: no output of this program; give another output file")
            theirs, ours = self._current(written), self._current(settings)
            for key in {**ours, **theirs}:
                is_fingerprint = key in FINGERPRINTS and name in self._kind.MADE_BY
                if theirs.get(key) != ours.get(key) and not is_fingerprint:
                    raise UserError(
                        f"{place}: made with {key} {theirs.get(key)}, this run has {ours.get(key)}; "
                        "use the same settings, or give another output file"
                    )
        echoed = {key: row.get(key) for key in given}
        if write_line(echoed) != write_line(given):
            raise UserError(f"{place}: made from another input (row {index + 1}); give another output file")
        return self._kind.from_dict(row, place)


def other_model(place: str | Location, made_by: str, name: str, theirs: object, ours: object) -> UserError:
    """One line on a row, at ``place``, that another model has made; ``name``: of the fingerprint that differs."""
    field = f"{made_by}.{name}" if made_by else name
    return UserError(
        f"{place}: made by a model with the {FINGERPRINTS[name]} {theirs} (`{field}`), this run's has {ours}: "
        "another model lies under the same name; take the old one, or give another output"
    )


def fingerprints_of(kind: type[Row], row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(model, name, fingerprint) of all that stand in a row, or in some of its fields."""
    models = {made_by: _inner(row, made_by) for made_by in kind.MADE_BY}
    return [
        (made_by, name, found)
        for made_by, model in models.items()
        for name in FINGERPRINTS
        if isinstance(found := model.get(name), str)
    ]


def _inner(row: Mapping[str, Any], dotted: str) -> Mapping[str, Any]:
    """The object at `models.generator`, empty where there is none; at "" the row."""
    value: Any = row
    for name in filter(None, dotted.split(".")):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _lines(file: LineFile, start: int = 0, first: int = 1) -> Iterator[tuple[str, bytes, bool]]:
    """(place, line with its newline, whether it has one) from a byte on, at which the line ``first`` begins."""
    if not isinstance(file.path, Path):  # of which there is no index: all of it
        for number, (line, is_complete) in enumerate(file.lines(), start=1):
            yield f"{file.path}:{number}", line, is_complete
        return
    try:
        with open(file.path, "rb") as stream:
            stream.seek(start)
            for number, line in enumerate(stream, start=first):  # bytes end their lines at a newline alone
                yield f"{file.path}:{number}", line, line.endswith(b"\n")
    except OSError as error:
        raise UserError(f"{file.path}: {error.strerror or error}") from error


def _parse(place: str, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: no output of this program; give another output file") from error
    if not isinstance(row, dict):
        raise UserError(f"{place}: no output of this program; give another output file")
    return row
