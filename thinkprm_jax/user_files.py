"""Texts and JSON objects from files that users give; what is wrong with one is a line that names it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.paths import check_input
from thinkprm_jax.storage import ObjectPath, open_read

LFS_START = b"version https://git-lfs.github.com/spec/"
MOST_JSON = 64 * 2**20  # bytes; the largest that models have, the index of their weights, is a tenth of it


def read_text(path: str | Path | ObjectPath, most: int, place: str | None = None, pipes: bool = False) -> str:
    """The text of a file in UTF-8, without the mark that some editors write at its start.

    Args:
      path: of the file. most: bytes that it may have; nothing beyond them is read.
      place: what it is called in messages; None: the path. pipes: whether it may be a pipe.
    Raises:
      UserError: it cannot be read, is a device or a folder, is longer, or is not UTF-8.
    """
    place = place or str(path)
    check_input(path, pipes)
    with reading(place), open_read(path) as file:
        content = file.read(most + 1)
        if len(content) > most:
            raise UserError(f"{place}: is longer than {most:,} bytes")
        check_whole(content, place)
        return content.decode("utf-8-sig")


def check_whole(start: bytes, place: str | Path | ObjectPath) -> None:
    """UserError where ``start`` begins a file that is not there yet: git without lfs leaves a few lines of text
    in the place of a large one."""
    if start.startswith(LFS_START):
        raise UserError(f"{place}: is a pointer of git-lfs, not the file: run `git lfs pull` in its folder")


def check_whole_file(path: Path | ObjectPath, place: str | None = None) -> None:
    """The same of a file that a library is going to read."""
    with open_read(path) as file:
        check_whole(file.read(len(LFS_START)), place or path)


def read_json(path: str | Path | ObjectPath, most: int = MOST_JSON) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      path, most: as of :func:`read_text`.
    Raises:
      UserError: it cannot be read, or holds something else.
    """
    text = read_text(path, most)
    try:
        content = parse_json(text)
    except GivenTwice as error:
        raise UserError(f"{path}: line {error.line}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({json_fault(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no JSON object")
    _check_characters(text, content, path)
    return content


def _check_characters(text: str, content: dict[str, Any], path: str | Path | ObjectPath) -> None:
    """UserError where a text of ``content`` has no UTF-8: it would fail where it is written again."""
    if not _HALF.search(text):
        return  # only an escape can make half of a pair
    half = lone_surrogate(json.dumps(content, ensure_ascii=False))
    if half is not None:
        raise UserError(f"{path}: a text in it has {half}")


def lone_surrogate(text: str) -> str | None:
    """What has no UTF-8 in ``text``, in words; None where nothing."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (U+{ord(text[error.start]):04X})"
    return None


_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class GivenTwice(ValueError):
    """A key stands twice in one object of JSON: one of its values would be dropped in silence.

    Attributes:
      line: from 1, of the second one.
    """

    def __init__(self, key: str, line: int) -> None:
        shown = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}..."
        super().__init__(f"the field `{shown}` is given twice in one object")
        self.line = line


def parse_json(text: str, **options: Any) -> Any:
    """``json.loads``, but a key that is given twice is :class:`GivenTwice`.

    Args:
      options: of json.loads.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise GivenTwice(*_find_twice(text))
        return found

    return json.loads(text, object_pairs_hook=once, **options)


def json_fault(error: ValueError | RecursionError) -> str:
    """What is wrong with a text that is no JSON. Python's words for a long number are advice to programmers."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not isinstance(error, json.JSONDecodeError) and "digits" in str(error):
        return f"a whole number of more than {sys.get_int_max_str_digits():,} digits"
    return str(error)


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]')
_LONGEST_KEY = 80  # characters in a message


def _find_twice(text: str) -> tuple[str, int]:
    """(key, line) of the first key of an object that has stood in it before; some key has."""
    seen: list[set[str] | None] = []  # of the objects that are open; None: a list
    is_key = False
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in "{[":
            seen.append(set() if mark == "{" else None)
        elif mark in "}]":
            seen.pop()
        elif is_key and mark[0] == '"' and (keys := seen[-1]) is not None:
            key = json.loads(mark, strict=False)
            if key in keys:
                return key, text.count("\n", 0, token.start()) + 1
            keys.add(key)
        is_key = mark == "{" or (mark == "," and seen[-1] is not None)
    raise AssertionError("no key stands twice")
