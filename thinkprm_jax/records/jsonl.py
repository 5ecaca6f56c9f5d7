"""JSON Lines: rows line by line, each with its place for messages; and a row as a line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import check_input
from thinkprm_jax.records.files import read_line_file
from thinkprm_jax.storage import ObjectPath, location
from thinkprm_jax.user_files import GivenTwice, check_whole, json_fault, parse_json

# Where one of these stands in a line, it may hold a number that is not finite.
_NOT_FINITE = re.compile(rb"NaN|Infinity|[eE]\+?\d{3}|\d{309}")


class WrittenNumber(float):
    """A number of JSON with a point or an exponent, which remembers its text: `0.00001` is no `1e-05`.

    Everything else takes it for the float that it is.
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> WrittenNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type[WrittenNumber], tuple[str]]:
        return WrittenNumber, (self.text,)


def iterate_rows(path: str | Path | ObjectPath) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every line that is not blank, line by line; place is `file:line`, for error messages.

    Raises:
      UserError: the file cannot be read, or a line is no JSON object; names file and line.
    """
    check_input(path)
    try:
        for number, line in enumerate(read_line_file(location(path)), start=1):
            if line.strip():
                yield f"{path}:{number}", parse_line(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def parse_line(line: bytes, place: str, finite: bool = False) -> dict[str, Any]:
    """A line as a JSON object; `UserError` with ``place`` where it is none.

    Args:
      finite: NaN and infinity, which JSON does not have, are refused with the name of their field.
    """
    row = parse_value(line, place)
    if not isinstance(row, dict):
        raise UserError(f"{place}: a line must be a JSON object, this is {type_name(row)}")
    if finite and _NOT_FINITE.search(line):
        check_finite(row, place)
    return row


def parse_value(line: bytes, place: str) -> Any:
    """A line as any value of JSON; `UserError` with ``place`` where it is none."""
    line = line.removeprefix(b"\xef\xbb\xbf")  # of a file, or of several that were joined
    try:
        return parse_json(line.decode("utf-8"), parse_float=WrittenNumber)
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 (byte {error.start + 1} of the line)") from error
    except GivenTwice as error:
        raise UserError(f"{place}: {error}") from error
    except (ValueError, RecursionError) as error:
        check_whole(line, place)
        raise UserError(f"{place}: not JSON: {json_fault(error)}") from error


def check_finite(value: Any, place: str) -> None:
    """`UserError` that names the field in which a number is not finite: it could not be written again as JSON."""
    try:
        _check_finite(value, place, "")
    except RecursionError:
        raise UserError(f"{place}: its lists and objects are nested too deeply") from None


def _check_finite(value: Any, place: str, name: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place}: the field `{name}` is {value}, which is no number of JSON; write null")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, place, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_finite(item, place, f"{name}[{index}]")


def read_rows(path: str | Path | ObjectPath) -> list[tuple[str, dict[str, Any]]]:
    """:func:`iterate_rows` as a list; `UserError` also where there is no row."""
    rows = list(iterate_rows(path))
    if not rows:
        raise UserError(f"{path}: no rows in it")
    return rows


def read_growing(path: str | Path | ObjectPath) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
    """Of a file that a program may be writing: (rows as of :func:`iterate_rows`, whether the last line is
    half-written and not among them). Such a line has no newline yet and is no JSON."""
    check_input(path)
    rows: list[tuple[str, dict[str, Any]]] = []
    try:
        for row in iterate_rows(path):
            rows.append(row)
    except UserError:
        if not _ends_half_written(path, len(rows)):
            raise
        return rows, True
    return rows, False


def _ends_half_written(path: str | Path | ObjectPath, good: int) -> bool:
    """Whether all lines but the last have been read, and that one is not closed."""
    try:
        lines = [line for line in read_line_file(location(path)) if line.strip()]
    except OSError:
        return False
    return len(lines) == good + 1 and not lines[-1].endswith(b"\n")


def get_field(row: Mapping[str, Any], name: str, kind: type, place: str, prefix: str = "") -> Any:
    """row[name], of a ``kind`` of JSON (or object: any); `UserError` with place and field where it is not.

    ``prefix``: of the name in messages, for a row inside a row.
    """
    if name not in row:
        raise UserError(f"{place}: the field `{prefix}{name}` is missing")
    return _require(row[name], kind, _KINDS.get(kind, ""), f"{prefix}{name}", place)


def get_answer(row: Mapping[str, Any], place: str) -> str:
    """row["answer"], the text of a gold answer; of a number the text that the file has, of a date its ISO form.

    Raises:
      UserError: it is missing, or neither text, number nor date; names place and field.
    """
    value = get_field(row, "answer", object, place)
    if isinstance(value, WrittenNumber):
        return value.text
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal, date, time)):
        raise UserError(f"{place}: the field `answer` must be a text or a number, it is {type_name(value)}")
    return str(value)


def get_texts(row: Mapping[str, Any], name: str, place: str) -> list[str]:
    """row[name], a list of texts; `UserError` with place and field where it is not."""
    values = _require(get_field(row, name, object, place), list, "a list of texts", name, place)
    return [_require(value, str, "a text", f"{name}[{index}]", place) for index, value in enumerate(values)]


def _require(value: Any, kind: type, wanted: str, name: str, place: str) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{place}: the field `{name}` must be {wanted}, it is {type_name(value)}")
    return value


def write_line(row: Mapping[str, Any]) -> bytes:
    """One line of JSON in UTF-8; lone surrogates, which have no UTF-8, as escapes. `UserError` for a number that
    is not finite."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False).encode() + b"\n"
    except ValueError:
        check_finite(row, "a row")
        raise


def type_name(value: Any) -> str:
    """What JSON calls it."""
    return _KINDS.get(type(value), "a number")


_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
