"""Writing a place whole: it holds the new content, or what it held before, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from thinkprm_jax.storage import stores
from thinkprm_jax.storage.location import ObjectPath, location


def write_whole(place: str | Path | ObjectPath, content: bytes | str) -> None:
    """The place then holds ``content``; after a kill, on a full disk or on a lost connection, what it held before.

    On this machine the content goes into a hidden file beside it, which then takes its name; of a link, the file
    behind it is replaced. In a store it is one upload, which shows nothing before it is complete. Two programs
    that write one file at a time do not mix: the last one counts.

    Args:
      place: on this machine, in a folder that exists. content: a text is written in UTF-8.
    Raises:
      UserError: it cannot be written to a store; one line that names the address.
      OSError: it cannot be written on this machine.
    """
    data = content.encode() if isinstance(content, str) else content
    place = location(place)
    if isinstance(place, ObjectPath):
        stores.put_bytes(str(place), data)
        return
    with open_whole(place) as file:
        file.write(data)


@contextlib.contextmanager
def open_whole(place: str | Path | ObjectPath) -> Iterator[IO[bytes]]:
    """:func:`write_whole` of what is written to the stream; where the block raises, nothing has changed.

    For a store the stream is a temporary file of this machine, which goes up when the block ends: libraries that
    stream close what they have begun on an error, and a half-written object looks whole.

    Example:

        with open_whole("gs://bucket/rows.jsonl") as file:
            for row in rows:
                file.write(write_line(row))
    """
    place = location(place)
    if isinstance(place, ObjectPath):
        with tempfile.TemporaryDirectory(prefix="thinkprm-upload-") as folder:
            path = Path(folder) / place.name  # stores guess the kind of content from the name
            with open(path, "w+b") as file:
                yield file
            stores.put_file(str(place), str(path))
        return
    target = place
    with contextlib.suppress(OSError, RuntimeError):  # a link that leads nowhere, or in a circle: replaced itself
        target = place.resolve(strict=True)
    work = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(work, "x+b") as file:  # in the mode that any new file has
            yield file
        os.replace(work, target)
    except BaseException:
        work.unlink(missing_ok=True)
        raise
