"""Reading a place as a stream of bytes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import stores
from thinkprm_jax.storage.location import ObjectPath, location

BLOCK = 8 * 2**20  # bytes of one request


def open_read(place: str | Path | ObjectPath) -> IO[bytes]:
    """A stream of bytes that can seek; of an object a block at a time, so its size does not matter.

    Example:

        with open_read("gs://bucket/rows.jsonl") as file:
            for line in file:
                ...

    Raises:
      UserError: an object cannot be read, now or later, or is written again while it is read.
      OSError: a file of this machine cannot be opened.
    """
    place = location(place)
    if isinstance(place, Path):
        return open(place, "rb")
    return io.BufferedReader(_ObjectReader(place), BLOCK)


class _ObjectReader(io.RawIOBase):
    def __init__(self, place: ObjectPath) -> None:
        found = stores.describe(str(place))
        if found is None or found.is_folder:
            raise UserError(f"{place}: {'is a folder, not a file' if found else 'no such file'}")
        self._place, self._found, self._position = place, found, 0
        self.name = str(place)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._found.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readall(self) -> bytes:
        """Python's own would ask for a few kilobytes at a time."""
        blocks = []
        while block := bytearray(min(BLOCK, max(self._found.size - self._position, 0))):
            del block[self.readinto(block) :]
            blocks.append(bytes(block))
        return b"".join(blocks)

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._found.size)
        if self._position >= end:
            return 0
        content = stores.read_range(str(self._place), self._position, end)
        if len(content) != end - self._position or stores.describe(str(self._place)) != self._found:
            raise UserError(f"{self._place}: was written again while it was read")
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
