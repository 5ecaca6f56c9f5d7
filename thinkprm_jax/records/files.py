"""Files that are whole, or whose lines are, whatever stops the program that writes them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import cannot_write, check_output

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """The file then holds ``content``; after a kill or on a full disk, what it held before, never a part.

    The content goes into a hidden file beside it, which then takes its name. Two programs that write one file at
    a time do not mix: the last one counts.

    Args:
      path: in a folder that exists; of a link, the file behind it is replaced.
      content: a text is written in UTF-8.
    Raises:
      UserError: the file cannot be written (names it and says why), or is a device or the like, which the new
        file would replace.
    """
    check_output(path)
    target = Path(path)
    with contextlib.suppress(OSError, RuntimeError):  # a link that leads nowhere, or in a circle: replaced itself
        target = target.resolve(strict=True)
    work = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        try:
            with open(work, "xb") as file:  # in the mode that any new file has
                file.write(data)
            os.replace(work, target)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


class LineFile:
    """A file that grows line by line, written by this run alone.

    Raises:
      UserError: it cannot be written, or another run has it open.
    """

    def __init__(self, path: Path) -> None:
        check_output(path)
        self.path = path
        try:
            # Without a buffer: what a full disk refused must not be tried once more when the file is closed.
            self._file: FileIO = open(path, "ab", buffering=0)  # noqa: SIM115 (stays open for the run)
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

    def append(self, line: bytes) -> None:
        """A whole line or none: where the disk is full, what got there of it is cut off again."""
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
        if os.fstat(self._file.fileno()).st_size == size:
            return
        try:
            self._file.truncate(size)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:  # network file systems say only now that the disk is full
            raise cannot_write(self.path, error) from error


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """:func:`atomic_write` of a JSON object, indented, in ASCII."""
    atomic_write(path, json.dumps(content, indent=2) + "\n")
