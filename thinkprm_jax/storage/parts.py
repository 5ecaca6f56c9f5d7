"""Lines that are added as they come, in a store: numbered parts, each of them whole or absent.

    FILE.parts/00000000.jsonl    the first lines, whole
    FILE.parts/00000001.jsonl    the next ones
    FILE                         all of them, written in one upload when the run is done; the parts are gone then

A reader takes FILE where it is there, or else the parts in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import stores
from thinkprm_jax.storage.location import ObjectPath
from thinkprm_jax.storage.reading import open_read
from thinkprm_jax.storage.writing import open_whole

PART_BYTES = 8 * 2**20
PART_SECONDS = 30.0  # what a kill loses at most of lines that come steadily


class PartLog:
    """Appending to an object. What a kill takes is at most what came in the last ``seconds`` before.

    Args:
      place: of the whole. size, seconds: a part is written when so many bytes wait, or the first of them so long.

    Example:

        with PartLog(ObjectPath("gs://bucket/rows.jsonl")) as log:
            known = list(log.lines())     # of an earlier run
            log.append(b'{"row": 1}\\n')
            log.seal()                    # the whole file, in the place of the parts

    Raises:
      UserError: the store does not take a part, or another run has written the same one.
    """

    def __init__(self, place: ObjectPath, size: int = PART_BYTES, seconds: float = PART_SECONDS) -> None:
        self.place, self._size, self._seconds = place, size, seconds
        self._waiting: list[bytes] = []
        self._bytes, self._since = 0, 0.0
        self._parts = list_parts(place)
        self._is_whole = place.is_file()
        self._next = int(self._parts[-1].stem) + 1 if self._parts else 0

    def lines(self) -> Iterator[bytes]:
        """Those in the store, of the whole file or else of its parts; not those that still wait."""
        return read_lines(self.place)

    def append(self, line: bytes) -> None:
        """A line with its newline."""
        self._since = self._since if self._waiting else time.monotonic()
        self._waiting.append(line)
        self._bytes += len(line)
        if self._bytes >= self._size or time.monotonic() - self._since >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """What waits becomes a part."""
        if not self._waiting:
            return
        if self._is_whole:
            self._take_apart()
        self._put(b"".join(self._waiting))
        self._waiting, self._bytes = [], 0

    def _put(self, content: bytes) -> None:
        part = _folder(self.place) / f"{self._next:08d}.jsonl"
        try:
            stores.put_bytes(str(part), content, new=True)
        except FileExistsError as error:
            raise UserError(f"{part}: another run is writing it") from error
        except UserError as error:
            raise UserError(f"{error}; what is there is whole, and the same command goes on") from error
        self._parts.append(part)
        self._next += 1

    def _take_apart(self) -> None:
        """Of a file that was whole and is to grow: it becomes the first part. Parts beside it are those that a
        kill left behind when it had become whole."""
        for part in self._parts:
            part.unlink(missing_ok=True)
        self._parts, self._next = [], 0
        self._put(self.place.read_bytes())
        self.place.unlink()
        self._is_whole = False

    def cut(self, size: int) -> None:
        """Leaves so many bytes of the lines that are in the store."""
        if size == sum(file.size() for file in ([self.place] if self._is_whole else self._parts)):
            return
        kept, left = [], size
        for line in self.lines():
            if len(line) > left:
                break
            kept.append(line)
            left -= len(line)
        self.discard()
        if kept:
            self._put(b"".join(kept))

    def seal(self) -> None:
        """Writes the whole file, and removes the parts."""
        self.flush()
        if not self._is_whole:
            with open_whole(self.place) as file:
                file.writelines(self.lines())
            self._is_whole = True
        for part in self._parts:
            part.unlink(missing_ok=True)
        self._parts = []

    def discard(self) -> None:
        """Removes the whole file and the parts, and forgets what waits."""
        self._waiting, self._bytes = [], 0
        for place in (self.place, *self._parts):
            place.unlink(missing_ok=True)
        self._parts, self._is_whole = [], False

    def close(self) -> None:
        self.flush()

    def __enter__(self) -> PartLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def list_parts(place: ObjectPath) -> list[ObjectPath]:
    """In order."""
    return sorted(part for part in _folder(place).glob("*.jsonl") if part.stem.isdecimal())


def read_lines(place: ObjectPath) -> Iterator[bytes]:
    """The lines of a file that is whole, or of its parts so far; none where there is neither.

    A line without a newline is the last one of a file that somebody else wrote."""
    for file in [place] if place.is_file() else list_parts(place):
        with open_read(file) as stream:
            yield from stream


def _folder(place: ObjectPath) -> ObjectPath:
    return place.with_name(f"{place.name}.parts")
