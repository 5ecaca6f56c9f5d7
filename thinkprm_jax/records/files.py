"""Files that are whole, or whose lines are, whatever stops the program that writes them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import cannot_write, check_output
from thinkprm_jax.storage import Location, ObjectPath, PartLog, location, open_whole, write_whole
from thinkprm_jax.storage.parts import list_parts, read_lines

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def atomic_write(path: str | Path | ObjectPath, content: bytes | str) -> None:
    """:func:`thinkprm_jax.storage.write_whole`, with every failure in one line.

    Raises:
      UserError: the file cannot be written (names it and says why), or is a device or the like, which the new
        file would replace.
    """
    check_output(path)
    try:
        write_whole(path, content)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_lines_whole(path: str | Path | ObjectPath, lines: Iterable[bytes]) -> None:
    """:func:`atomic_write` of many lines, which are taken one by one and never in memory together.

    Raises:
      UserError: as of :func:`atomic_write`.
    """
    check_output(path)
    try:
        with open_whole(path) as file:
            file.writelines(lines)
    except OSError as error:
        raise cannot_write(path, error) from error


class LineFile:
    """A file that grows line by line, written by this run alone.

    In a store it grows by parts (:class:`~thinkprm_jax.storage.PartLog`): a line is there when its part is, and
    at the end :meth:`seal` makes one file of them.

    Raises:
      UserError: it cannot be written, or another run has it open.
    """

    def __init__(self, path: str | Path | ObjectPath) -> None:
        check_output(path)
        self.path = location(path)
        if isinstance(self.path, ObjectPath):
            self._file: FileIO | PartLog = PartLog(self.path)
            return
        try:
            # Without a buffer: what a full disk refused must not be tried once more when the file is closed.
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (stays open for the run)
        except OSError as error:
            raise cannot_write(path, error) from error
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UserError(f"{path}: another run is writing it") from error
        except OSError:  # a file system without locks
            pass

    def lines(self) -> Iterator[tuple[bytes, bool]]:
        """(line, whether it has its newline) of what is there."""
        try:
            there = self._file.lines() if isinstance(self._file, PartLog) else read_line_file(self.path)
            for line in there:
                yield line, line.endswith(b"\n")
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror or error}") from error

    def append(self, line: bytes) -> None:
        """A whole line or none: where the disk is full, what got there of it is cut off again."""
        if isinstance(self._file, PartLog):
            self._file.append(line)
            return
        end = self._file.seek(0, os.SEEK_END)
        left = memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise cannot_write(self.path, error, "; its lines are whole, and the same command goes on") from error

    def cut(self, size: int) -> None:
        """Leaves so many bytes."""
        if isinstance(self._file, PartLog):
            self._file.cut(size)
            return
        if os.fstat(self._file.fileno()).st_size == size:
            return
        try:
            self._file.truncate(size)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def seal(self) -> None:
        """Nothing more will come."""
        if isinstance(self._file, PartLog):
            self._file.seal()

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:  # network file systems say only now that the disk is full
            raise cannot_write(self.path, error) from error

    def remove(self) -> None:
        """Closes it, and there is no such file any more."""
        if isinstance(self._file, PartLog):
            self._file.discard()
        self.close()
        remove_lines(self.path)


def has_lines(place: Location) -> bool:
    """Whether there is anything in a file that grows."""
    if isinstance(place, ObjectPath):
        return any(file.size() for file in [place] if file.is_file()) or bool(list_parts(place))
    return place.exists() and place.stat().st_size > 0


def write_lines(place: Location, lines: Iterable[bytes]) -> None:
    """A file that grows, anew and whole; nobody has it open."""
    atomic_write(place, b"".join(lines))
    for part in list_parts(place) if isinstance(place, ObjectPath) else ():
        part.unlink(missing_ok=True)  # where a kill leaves them, the whole file counts


def remove_lines(place: Location) -> None:
    """A file that grows, and in a store its parts; nobody has it open."""
    place.unlink(missing_ok=True)
    for part in list_parts(place) if isinstance(place, ObjectPath) else ():
        part.unlink(missing_ok=True)


def read_line_file(place: Location) -> Iterator[bytes]:
    """Its lines so far, with their newlines: in a store of its parts, until it is whole.

    Raises:
      UserError: there is neither in a store. OSError: it cannot be read on this machine.
    """
    if isinstance(place, ObjectPath):
        if not place.is_file() and not list_parts(place):
            raise UserError(f"{place}: no such file")
        yield from read_lines(place)
        return
    with open(place, "rb") as file:  # bytes end their lines at a newline alone
        yield from file


def write_json(path: str | Path | ObjectPath, content: Mapping[str, Any]) -> None:
    """:func:`atomic_write` of a JSON object, indented, in ASCII."""
    atomic_write(path, json.dumps(content, indent=2) + "\n")
