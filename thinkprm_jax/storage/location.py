"""What a text names: a path of this machine, or an object in a store."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn, TypeAlias
from urllib.parse import unquote

from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import stores

# `Path` makes one slash of two. A single letter is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


class ObjectPath:
    """An object in a store, or the folder that objects' names make; with the methods of `Path` that we use.

    Nothing is asked of the store before a method needs it. Every failure is a `UserError` of one line that begins
    with the address. What wants a file of this machine (``os.fspath``, ``open``, ``Path``) is refused like that.

    Example:

        run = ObjectPath("gs://bucket/runs/1")
        names = [place.name for place in run.glob("*.jsonl")]

    Attributes:
      scheme: `gs`. key: `bucket/runs/1`, without slashes at its ends.
    """

    __slots__ = ("key", "scheme")

    def __init__(self, url: str) -> None:
        scheme, key = _split(url)
        stores.check_scheme(scheme, url)
        if not key and scheme != "memory":
            raise UserError(f"{url}: names no bucket")
        self.scheme, self.key = scheme, key

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __fspath__(self) -> NoReturn:
        raise UserError(f"{self}: is in an object store, and a file of this machine is needed here")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: ObjectPath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[type[ObjectPath], tuple[str]]:
        return ObjectPath, (str(self),)

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(f"{self}/{name}".replace(":///", "://"))

    # Names

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        above = self.key.rpartition("/")[0]
        return ObjectPath(f"{self.scheme}://{above}") if above else self

    def with_name(self, name: str) -> ObjectPath:
        return self.parent / name

    def with_suffix(self, suffix: str) -> ObjectPath:
        return self.with_name(self.stem + suffix)

    def expanduser(self) -> ObjectPath:
        return self

    def resolve(self, strict: bool = False) -> ObjectPath:
        return self

    def absolute(self) -> ObjectPath:
        return self

    def samefile(self, other: object) -> bool:
        return self == other

    # What is there

    def exists(self) -> bool:
        return stores.describe(str(self)) is not None

    def is_file(self) -> bool:
        found = stores.describe(str(self))
        return found is not None and not found.is_folder

    def is_dir(self) -> bool:
        """Whether there is an object below it: a store has no empty folders."""
        found = stores.describe(str(self))
        return found is not None and found.is_folder

    def size(self) -> int:
        """Bytes; `UserError` where there is no such object."""
        found = stores.describe(str(self))
        if found is None or found.is_folder:
            raise UserError(f"{self}: no such file")
        return found.size

    def iterdir(self) -> Iterator[ObjectPath]:
        """What stands directly below, files and folders, in the order of their names; nothing where nothing is."""
        return iter([ObjectPath(url) for url in stores.names_below(str(self), deep=False)])

    def files(self) -> list[ObjectPath]:
        """All files below, however deep, in the order of their names."""
        return [ObjectPath(url) for url in stores.names_below(str(self), deep=True)]

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """What stands directly below and fits a pattern without a slash; or files below, with `**/` before it."""
        if pattern.startswith("**/"):
            return (place for place in self.files() if fnmatch.fnmatchcase(place.name, pattern[3:]))
        return (place for place in self.iterdir() if fnmatch.fnmatchcase(place.name, pattern))

    # Reading and writing

    def read_bytes(self) -> bytes:
        """The whole object, into memory."""
        return stores.read_range(str(self), None, None)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def unlink(self, missing_ok: bool = False) -> None:
        stores.delete(str(self), missing_ok)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: what is written into a folder makes it."""


Location: TypeAlias = Path | ObjectPath


def location(place: str | Path | ObjectPath) -> Location:
    """What a text names.

    Example:

        location("runs/1")             # Path("runs/1")
        location("gs://bucket/run")    # ObjectPath("gs://bucket/run")

    Args:
      place: a path of this machine (also `file:///runs/1`), or an address: `gs://`, `s3://`, `hf://`, `memory://`.
        An address that went through `Path`, which makes one slash of two, is understood.
    Raises:
      UserError: an address of another kind, or one whose package is not installed.
    """
    if isinstance(place, ObjectPath):
        return place
    text = os.fspath(place)
    found = _ADDRESS.match(text)
    if found is None:
        return Path(place)
    if found[1].lower() == "file":
        return Path("/" + unquote(text[found.end() :]))
    return ObjectPath(text)


def same_file(a: str | Path | ObjectPath, b: str | Path | ObjectPath) -> bool:
    """Whether both are there and the same, links or not."""
    a, b = location(a), location(b)
    if isinstance(a, Path) and isinstance(b, Path):
        return a.exists() and b.exists() and a.samefile(b)
    return a == b


def is_local(place: str | Path | ObjectPath) -> bool:
    """Whether it names a path of this machine."""
    return isinstance(location(place), Path)


def _split(url: str) -> tuple[str, str]:
    """(scheme, the rest without slashes at its ends)."""
    found = _ADDRESS.match(url)
    if found is None:
        raise ValueError(f"{url} is no address")
    scheme = found[1].lower()
    return stores.ALIASES.get(scheme, scheme), url[found.end() :].strip("/")
