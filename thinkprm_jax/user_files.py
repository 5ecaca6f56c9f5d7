"""Texts and JSON objects from files that users give; what is wrong with one is a line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.paths import check_input

LFS_START = b"version https://git-lfs.github.com/spec/"
MOST_JSON = 64 * 2**20  # bytes; the largest that models have, the index of their weights, is a tenth of it


def read_text(path: str | Path, most: int, place: str | None = None, pipes: bool = False) -> str:
    """The text of a file in UTF-8, without the mark that some editors write at its start.

    Args:
      path: of the file. most: bytes that it may have; nothing beyond them is read.
      place: what it is called in messages; None: the path. pipes: whether it may be a pipe.
    Raises:
      UserError: it cannot be read, is a device or a folder, is longer, or is not UTF-8.
    """
    place = place or str(path)
    check_input(path, pipes)
    with reading(place), open(path, "rb") as file:
        content = file.read(most + 1)
        if len(content) > most:
            raise UserError(f"{place}: is longer than {most:,} bytes")
        check_whole(content, place)
        return content.decode("utf-8-sig")


def check_whole(start: bytes, place: str | Path) -> None:
    """UserError where ``start`` begins a file that is not there yet: git without lfs leaves a few lines of text
    in the place of a large one."""
    if start.startswith(LFS_START):
        raise UserError(f"{place}: is a pointer of git-lfs, not the file: run `git lfs pull` in its folder")


def check_whole_file(path: Path, place: str | None = None) -> None:
    """The same of a file that a library is going to read."""
    with path.open("rb") as file:
        check_whole(file.read(len(LFS_START)), place or path)


def read_json(path: str | Path, most: int = MOST_JSON) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      path, most: as of :func:`read_text`.
    Raises:
      UserError: it cannot be read, or holds something else.
    """
    text = read_text(path, most)
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{path}: cannot be read as JSON (nested too deeply)") from error
    except ValueError as error:  # also a whole number of more digits than Python reads
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no JSON object")
    return content
