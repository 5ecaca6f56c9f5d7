"""What a path leads to, before a program opens it: a file of this machine, or something that it must not touch."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from thinkprm_jax.errors import UserError

# `Path` makes one slash of two. A single letter is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_DEVICES = re.compile(r"/dev(/fd)?|/proc/(self|thread-self|\d+)/fd")  # folders of names that are no files' own
_OTHERS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_local(path: str | Path) -> None:
    """UserError where it is an address (`gs://bucket/run`), of which `open` would make folders here."""
    found = _ADDRESS.match(os.fspath(path))
    if found is not None:
        address = f"{found[1]}://{os.fspath(path)[found.end() :]}"
        raise UserError(f"{address}: is an address, not a path of this machine")


def check_input(path: str | Path, pipes: bool = False) -> None:
    """Before a file is read: UserError where something else is there, which might never end. What is not there at
    all is left to whoever opens it.

    Args:
      pipes: those are taken, too (`<(zcat rows.jsonl.gz)` of a shell), by a reader that reads once.
    """
    check_local(path)
    kind = _kind(path)
    if kind is None or (pipes and kind == "a pipe"):
        return
    raise UserError(f"{path}: is {kind}, not a file")


def check_output(path: str | Path) -> None:
    """Before a file is written: UserError where something else is there, or an address is meant."""
    check_local(path)
    kind = _kind(path)
    if kind is None and not _DEVICES.fullmatch(str(Path(path).absolute().parent)):
        return
    why = ": what is written is read again when a run goes on" if kind == "a pipe" else ""
    raise UserError(f"{path}: is {kind or 'a device'}, and the output must be a file{why}")


def check_output_folder(path: str | Path) -> None:
    """The same of a folder that a run is to live in."""
    check_local(path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"{path}: is {_kind(path) or 'a file'}, and the output must be a folder")


def cannot_write(path: str | Path, error: OSError, more: str = "") -> UserError:
    """One line for what the system says of a file that is to be written."""
    return UserError(f"{path}: cannot be written: {error.strerror or error}{more}")


def _kind(path: str | Path) -> str | None:
    """What is there that is no file; None for a file, and where nothing can be seen."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a path with a zero byte
        return None
    return _OTHERS.get(stat.S_IFMT(mode))
