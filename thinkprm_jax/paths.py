"""What a path leads to, before a program opens it: a file, or something that it must not touch."""

from __future__ import annotations

import functools
import os
import re
import stat
from pathlib import Path

from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import ObjectPath, location
from thinkprm_jax.storage.stores import probe

_DEVICES = re.compile(r"/dev(/fd)?|/proc/(self|thread-self|\d+)/fd")  # folders of names that are no files' own
_OTHERS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_local(path: str | Path | ObjectPath) -> None:
    """UserError where it is an address (`gs://bucket/run`), for what can only be on this machine."""
    place = location(path)
    if isinstance(place, ObjectPath):
        raise UserError(f"{place}: is an address, not a path of this machine")


def check_input(path: str | Path | ObjectPath, pipes: bool = False) -> None:
    """Before a file is read: UserError where something else is there, which might never end. What is not there at
    all is left to whoever opens it.

    Args:
      pipes: those are taken, too (`<(zcat rows.jsonl.gz)` of a shell), by a reader that reads once.
    Raises:
      UserError: also where a store cannot be asked.
    """
    kind = _kind(location(path))
    if kind is None or (pipes and kind == "a pipe"):
        return
    raise UserError(f"{path}: is {kind}, not a file")


def check_output(path: str | Path | ObjectPath) -> None:
    """Before a file is written: UserError where something else is there, or a store does not let us write."""
    place = location(path)
    kind = _kind(place)
    if isinstance(place, ObjectPath):
        if kind is not None:
            raise UserError(f"{place}: is {kind}, and the output must be a file")
        _check_store(str(place.parent))
        return
    if kind is None and not _DEVICES.fullmatch(str(place.absolute().parent)):
        return
    why = ": what is written is read again when a run goes on" if kind == "a pipe" else ""
    raise UserError(f"{path}: is {kind or 'a device'}, and the output must be a file{why}")


def check_output_folder(path: str | Path | ObjectPath) -> None:
    """The same of a folder that a run is to live in."""
    place = location(path)
    if isinstance(place, ObjectPath):
        if place.is_file():
            raise UserError(f"{place}: is a file, and the output must be a folder")
        _check_store(str(place))
    elif os.path.exists(place) and not os.path.isdir(place):
        raise UserError(f"{path}: is {_kind(place) or 'a file'}, and the output must be a folder")


@functools.cache
def _check_store(folder: str) -> None:
    """Once a folder: writes an object and deletes it, since nothing else says whether both are allowed."""
    probe(folder)


def cannot_write(path: str | Path | ObjectPath, error: OSError, more: str = "") -> UserError:
    """One line for what the system says of a file that is to be written."""
    return UserError(f"{path}: cannot be written: {error.strerror or error}{more}")


def _kind(place: Path | ObjectPath) -> str | None:
    """What is there that is no file; None for a file, and where nothing can be seen."""
    if isinstance(place, ObjectPath):
        return "a folder" if place.is_dir() else None
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError):  # a path with a zero byte
        return None
    return _OTHERS.get(stat.S_IFMT(mode))
