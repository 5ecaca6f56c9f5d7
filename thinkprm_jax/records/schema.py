"""Rows as frozen dataclasses: the types of the fields say what a file may hold, for reading and for writing.

    @dataclass(frozen=True)
    class PointRow(Row):
        FORMAT = "point"

        name: str                                   # {"name": "a", "scores": [0.5], "thinkprm_format": "point/2"}
        scores: tuple[Probability, ...]
        note: str | None = field(default=None, metadata=LEFT_OUT)  # not in the file where it is None

    PointRow.from_dict({"name": "a", "scores": [2]}, "points.jsonl:7")
    # UserError: points.jsonl:7: the field `scores[0]` must be a number in [0, 1], it is 2

A type is str, bool, int, float (finite), Mapping (any object), Any, another record, one of the kinds of numbers
below, a tuple of those, or any of them or None.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.jsonl import iterate_rows, type_name
from thinkprm_jax.storage import ObjectPath

FORMAT_KEY = "thinkprm_format"
# Metadata of a field that does not stand in the file where it has its default.
LEFT_OUT: Mapping[str, bool] = {"left_out": True}


@dataclasses.dataclass(frozen=True)
class _Bounds:
    wanted: str
    low: float
    high: float = math.inf


Probability = Annotated[float, _Bounds("a number in [0, 1]", 0, 1)]
Label = Annotated[int, _Bounds("0 or 1", 0, 1)]  # 1 correct, 0 incorrect
Count = Annotated[int, _Bounds("a whole number, 0 or more", 0)]
StepIndex = Annotated[int, _Bounds("the index of a step, or -1", -1)]  # from 0; -1: none


class Record:
    """A frozen dataclass that stands in a file as a JSON object."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], place: str = "row", name: str = "") -> Self:
        """Checked against the types of the fields. Fields of the object that the class does not have do not count.

        Args:
          content: the object as JSON has it.
          place: names the row in errors (`verdicts.jsonl:12`). name: of the object in its row, "" for the row.
        Raises:
          UserError: a field is missing, or holds something else; names place and field.
        """
        prefix = f"{name}." if name else ""
        values: dict[str, Any] = {}
        for field, kind in _fields(cls):
            # In a table, which has all columns, null is what is left out.
            is_left_out = "left_out" in field.metadata and content.get(field.name) is None
            if field.name in content and not is_left_out:
                values[field.name] = decode(kind, content[field.name], place, prefix + field.name)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise UserError(f"{place}: the field `{prefix}{field.name}` is missing")
        made = cls(**values)
        made.check(place, prefix)
        return made

    def check(self, place: str, prefix: str) -> None:
        """Raises `UserError` where the fields do not fit together (see :func:`field_error`)."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, in the order of the fields."""
        return {
            field.name: encode(value)
            for field, _ in _fields(type(self))
            if (value := getattr(self, field.name)) != field.default or "left_out" not in field.metadata
        }


# What tells a model from others of its name, and how messages call it; each is a digest of files. Weights come
# last: those of a GGUF file change with all that stands in it.
FINGERPRINTS = {
    "config": "configuration",
    "tokenizer": "tokenizer",
    "chat_template": "chat template",
    "weights": "weights",
}


class Row(Record):
    """A line of a JSON Lines file.

    FORMAT and VERSION stand in each under the key ``thinkprm_format`` ("verdict/2"). Rows without it are of
    version 1; they have the same fields. MADE_BY are the dotted fields that say which models made the row
    (``verifier``; "" is the row itself): :data:`FINGERPRINTS` stand in them. Rows from before there were any lack
    them.
    """

    FORMAT: ClassVar[str]
    VERSION: ClassVar[int] = 2
    MADE_BY: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], place: str = "row", name: str = "") -> Self:
        check_format(content, (cls.FORMAT,), cls.VERSION, place)
        return super().from_dict(content, place, name)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), FORMAT_KEY: f"{self.FORMAT}/{self.VERSION}"}

    @classmethod
    def read(cls, path: str | Path | ObjectPath) -> list[Self]:
        """All rows of a file.

        Raises:
          UserError: it cannot be read, or a row is not as described; names file, line and field.
        """
        return [cls.from_dict(row, place) for place, row in iterate_rows(path)]


def check_format(row: Mapping[str, Any], formats: tuple[str, ...], version: int, place: str) -> None:
    """Raises `UserError` where a row says that it is of another format, or of a version that is still to come."""
    if FORMAT_KEY not in row:
        return
    given = row[FORMAT_KEY]
    name, slash, number = given.partition("/") if isinstance(given, str) else ("", "", "")
    if not slash or not number.isdecimal():
        raise field_error(place, FORMAT_KEY, f'must be a name and a version ("{formats[0]}/{version}")')
    if name not in formats:
        raise field_error(place, FORMAT_KEY, f"is {given}; rows of the format {formats[0]} are wanted here")
    if int(number) > version:
        raise field_error(
            place, FORMAT_KEY, f"is {given}; this version of thinkprm_jax knows {name} up to {version}"
        )


def field_error(place: str, name: str, what: str) -> UserError:
    """One line that names place and field."""
    return UserError(f"{place}: the field `{name}` {what}")


def field_types(cls: type[Record]) -> dict[str, Any]:
    """Name -> type of every field of a class."""
    return {field.name: kind for field, kind in _fields(cls)}


def optional_fields(cls: type[Record]) -> set[str]:
    """Those that need not stand in a file."""
    return {field.name for field, _ in _fields(cls) if "left_out" in field.metadata}


_KNOWN: dict[type, tuple[tuple[dataclasses.Field[Any], Any], ...]] = {}


def _fields(cls: type[Any]) -> tuple[tuple[dataclasses.Field[Any], Any], ...]:
    """(field, its type) of a record class."""
    if cls not in _KNOWN:
        kinds = typing.get_type_hints(cls, include_extras=True)
        _KNOWN[cls] = tuple((field, kinds[field.name]) for field in dataclasses.fields(cls))
    return _KNOWN[cls]


def encode(value: Any) -> Any:
    """A field's value as JSON has it."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def decode(kind: Any, value: Any, place: str, name: str) -> Any:
    """A value of JSON as a field of type ``kind`` holds it; `UserError` where it is something else."""
    bounds = None
    origin = typing.get_origin(kind)
    if origin is Annotated:
        kind, bounds = typing.get_args(kind)
        origin = None
    if origin in (types.UnionType, typing.Union):
        kinds = [one for one in typing.get_args(kind) if one is not types.NoneType]
        return None if value is None else decode(kinds[0], value, place, name)
    if origin is tuple:
        inner = typing.get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise _not_that(place, name, "a list of texts" if inner is str else "a list", value)
        return tuple(decode(inner, item, place, f"{name}[{index}]") for index, item in enumerate(value))
    if kind is float or kind is int:
        return _number(kind, bounds, value, place, name)
    if kind is Any:
        return value
    if isinstance(kind, type) and issubclass(kind, Record):
        if not isinstance(value, Mapping):
            raise _not_that(place, name, "an object", value)
        return kind.from_dict(value, place, name)
    if origin is collections.abc.Mapping:
        if not isinstance(value, Mapping):
            raise _not_that(place, name, "an object", value)
        inner = typing.get_args(kind)[1]
        return {key: decode(inner, item, place, f"{name}.{key}") for key, item in value.items()}
    if not isinstance(value, kind):
        raise _not_that(place, name, {str: "a text", bool: "true or false"}[kind], value)
    return value


def _number(kind: type, bounds: _Bounds | None, value: Any, place: str, name: str) -> float:
    wanted = "a whole number" if kind is int else "a finite number"
    if bounds is not None:
        wanted = bounds.wanted
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _not_that(place, name, wanted, value)
    low, high = (bounds.low, bounds.high) if bounds is not None else (-math.inf, math.inf)
    try:
        is_that = math.isfinite(kind(value)) and low <= value <= high and kind(value) == value
    except (OverflowError, ValueError):  # more digits than a float has; NaN, infinity
        is_that = False
    if not is_that or not isinstance(value, int | kind):
        raise field_error(place, name, f"must be {wanted}, it is {value}")
    return kind(value)


def _not_that(place: str, name: str, wanted: str, value: Any) -> UserError:
    return field_error(place, name, f"must be {wanted}, it is {type_name(value)}")
