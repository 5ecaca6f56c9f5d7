"""What a column of Parquet holds, found from rows of JSON. A column has one type; JSON does not care.

A type in JSON: "null" (nothing seen yet), "bool", "int", "float", "text", ["list", type] or {name: type}.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.schema import Record, field_types

Column = Any  # str | list | dict, as above
_NAMES = {"bool": "true or false", "int": "a whole number", "float": "a number", "text": "a text"}
_MOST = 2**63


def column_of(value: Any, place: str, name: str) -> Column:
    """The type of one value; `UserError` for a whole number that a column has no room for."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if not -_MOST <= value < _MOST:
            raise UserError(f"{place}: the field `{name}` is {value}, which is too large for a column of Parquet")
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return {key: column_of(item, place, f"{name}.{key}") for key, item in value.items()}
    inner: Column = "null"
    for index, item in enumerate(value):
        inner = unite(inner, column_of(item, place, f"{name}[{index}]"), place, f"{name}[]")
    return ["list", inner]


def unite(one: Column, other: Column, place: str, name: str) -> Column:
    """The type that holds both. `UserError` where there is none; ``place``: of the row with the second one."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if {str(one), str(other)} == {"int", "float"}:
        return "float"
    if isinstance(one, list) and isinstance(other, list):
        return ["list", unite(one[1], other[1], place, f"{name}[]")]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return unite_columns(one, other, place, f"{name}.")
    raise UserError(
        f"{place}: the field `{name}` is {_spell(other)} and in rows before it {_spell(one)}: a column of Parquet "
        "has one type; leave the field out, or write JSON Lines (--format jsonl)"
    )


def unite_columns(one: Mapping[str, Column], other: Mapping[str, Column], place: str, name: str = "") -> Column:
    """The same of objects, field by field."""
    united = dict(one)
    for key, kind in other.items():
        united[key] = unite(united.get(key, "null"), kind, place, name + key)
    return united


def _spell(kind: Column) -> str:
    return "an object" if isinstance(kind, Mapping) else "a list" if isinstance(kind, list) else _NAMES[kind]


def columns_of_record(cls: type[Record]) -> dict[str, Column]:
    """Of what a class of records writes."""
    return {name: _column_of_kind(kind) for name, kind in field_types(cls).items()}


def _column_of_kind(kind: Any) -> Column:
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return _column_of_kind(typing.get_args(kind)[0])
    if origin in (types.UnionType, typing.Union):
        return _column_of_kind(next(one for one in typing.get_args(kind) if one is not types.NoneType))
    if origin is tuple:
        return ["list", _column_of_kind(typing.get_args(kind)[0])]
    if isinstance(kind, type) and issubclass(kind, Record):
        return columns_of_record(kind)
    if origin is collections.abc.Mapping:
        raise TypeError("the fields of an object that may be anything are known from its rows alone")
    return {bool: "bool", int: "int", float: "float", str: "text"}[kind]


def arrow_schema(columns: Mapping[str, Column]) -> Any:
    """As pyarrow has it."""
    import pyarrow

    return pyarrow.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])


def fit(value: Any, kind: Column) -> Any:
    """A value as its column takes it: an object of a column that has none with fields is null."""
    if isinstance(kind, Mapping) and isinstance(value, Mapping):
        return {key: fit(item, kind[key]) for key, item in value.items()} if kind else None
    if isinstance(kind, list) and isinstance(value, list):
        return [fit(item, kind[1]) for item in value]
    return value


def _arrow_type(kind: Column) -> Any:
    import pyarrow

    if isinstance(kind, list):
        return pyarrow.list_(_arrow_type(kind[1]))
    if isinstance(kind, Mapping):
        # Parquet has no objects without fields.
        return pyarrow.struct([(name, _arrow_type(one)) for name, one in kind.items()]) if kind else pyarrow.null()
    return {
        "null": pyarrow.null(),
        "bool": pyarrow.bool_(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "text": pyarrow.string(),
    }[kind]
