"""Typed recipes: frozen dataclasses filled from YAML and ``key=value`` overrides.

A recipe class is an ordinary frozen dataclass whose fields are numbers, strings, booleans, literals, tuples of
those, or further dataclasses; ``None`` is allowed where the annotation says so. Whatever does not fit is refused
with a :class:`~thinkprm_jax.errors.UserError` that names the file, the line, the dotted field and, for a
misspelt name, the nearest valid one. A class checks combinations in ``__post_init__`` and raises ``ValueError``.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.storage import ObjectPath
from thinkprm_jax.user_files import lone_surrogate, read_text

MOST_BYTES = 2**17  # of a recipe
MOST_VALUES = 10_000  # of a recipe, aliases written out

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

Recipe = TypeVar("Recipe", bound="DataclassInstance")


@dataclasses.dataclass(frozen=True)
class _Value:
    """One node of the recipe's tree: a scalar, a list of nodes or a dict of nodes, and where it was written."""

    content: Any
    place: str  # "recipe.yaml, line 3" or "override data.seed=x"


def load_recipe(
    cls: type[Recipe],
    path: str | Path | ObjectPath,
    overrides: Sequence[str] = (),
    unused: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Recipe:
    """Reads ``path`` as a ``cls``, after replacing fields by ``overrides`` like ``optimizer.learning_rate=1e-4``.

    A field may be given twice with one and the same value.

    Example:

        from dataclasses import dataclass
        from pathlib import Path

        @dataclass(frozen=True)
        class Recipe:
            n: int = 4
            model: str = "mini"

        Path("recipe.yaml").write_text("n: 8")
        load_recipe(Recipe, "recipe.yaml", ["model=mini-weak"])  # Recipe(n=8, model="mini-weak")

    Args:
      cls: a frozen dataclass. path: of a YAML file. overrides: `field=value`, the last one wins.
      unused: fields that recipes of another program hold and that mean nothing here, with the reason. They are
        dropped, and ``say`` gets one line on each.
    Raises:
      UserError: no such file, bad YAML, an unknown or missing field, a wrong type, an impossible combination.
    """
    tree = _parse_file(path)
    if not isinstance(tree.content, dict):
        raise UserError(f"recipe {tree.place}: the recipe must be a table of fields")
    for override in overrides:
        _apply_override(tree, override)
    for name, reason in (unused or {}).items():
        value = tree.content.pop(name, None)
        if value is not None and say is not None:
            say(f"recipe {value.place}: {name} is not used: {reason}")
    return _build(cls, tree, "")


def plain_overrides(arguments: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Arguments of a program in which overrides may be written `--field=value`, as search-and-learn has them.

    Args:
      options: of the program itself, such as ``--mesh``, which stay as they are, however they are shortened.
    """

    def plain(argument: str) -> str:
        name, equals, _ = argument.partition("=")
        is_option = any(option.startswith(name) for option in options)
        return argument.lstrip("-") if equals and name.startswith("--") and not is_option else argument

    return [plain(argument) for argument in arguments]


def read_fields(path: str | Path | ObjectPath) -> dict[str, Any]:
    """The fields of a recipe as plain values, unchecked.

    Raises:
      UserError: the file cannot be read, or is no table of YAML.
    """
    content = _bare(_parse_file(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no table of fields")
    return content


def to_dict(recipe: Any) -> dict[str, Any]:
    """The recipe with every default filled in, as plain YAML values."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(recipe)


def dump_recipe(recipe: Any) -> str:
    """:func:`to_dict` as YAML text that :func:`load_recipe` reads back to an equal recipe."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


def flat_fields(recipe: Any) -> dict[str, Any]:
    """Dotted field -> its value, of :func:`to_dict`."""

    def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in tree.items():
            if isinstance(value, dict):
                flat |= flatten(value, f"{prefix}{name}.")
            else:
                flat[prefix + name] = value
        return flat

    return flatten(to_dict(recipe))


def differences(first: Any, second: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted fields in which two recipes of one class differ, with both values."""
    a, b = flat_fields(first), flat_fields(second)
    return {name: (a.get(name), b.get(name)) for name in a | b if a.get(name) != b.get(name)}


def at_least(least: float, section: Any, *names: str) -> None:
    """For ``__post_init__``: raises ValueError for a field of ``section`` that is given and below ``least``."""
    for name in names:
        value = getattr(section, name)
        if value is not None and not value >= least:  # also false for nan
            raise ValueError(f"{name} must be at least {least:g}, not {value}")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes, in every recipe that runs a model; one may be -1, whatever is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in ("data", "fsdp", "tensor"):
            if getattr(self, name) < 1 and getattr(self, name) != -1:
                raise ValueError(f"{name} must be at least 1, or -1 for whatever is left")

    @property
    def text(self) -> str:
        """For messages."""
        return f"mesh: data={self.data} x fsdp={self.fsdp} x tensor={self.tensor}"


def _parse_file(path: str | Path | ObjectPath) -> _Value:
    return _parse(read_text(path, MOST_BYTES, f"recipe {path}", pipes=True), str(path))


def _parse(text: str, place: str) -> _Value:
    with reading(f"recipe {place}"):
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            raise UserError(f"recipe {place}{line}: {getattr(error, 'problem', None) or 'not YAML'}") from None
        return _Value({}, place) if node is None else _convert(node, place, itertools.count(1))


def _convert(node: yaml.Node, file: str, count: Iterator[int]) -> _Value:
    """count: of the nodes so far. A few aliases of aliases stand for more values than any memory holds."""
    place = f"{file}, line {node.start_mark.line + 1}"
    if next(count) > MOST_VALUES:
        raise UserError(f"recipe {place}: more than {MOST_VALUES:,} values")
    if isinstance(node, yaml.MappingNode):
        content: dict[str, _Value] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"recipe {file}, line {key.start_mark.line + 1}: a field's name must be a word")
            converted = _convert(value, file, count)
            if key.value in content and _bare(content[key.value]) != _bare(converted):
                place = f"{file}, line {key.start_mark.line + 1}"
                raise UserError(f"recipe {place}: {key.value} is given twice with different values")
            content[key.value] = converted
            if not isinstance(value, yaml.MappingNode):
                continue
            content[key.value] = dataclasses.replace(
                content[key.value], place=f"{file}, line {key.start_mark.line + 1}"
            )
        return _Value(content, place)
    if isinstance(node, yaml.SequenceNode):
        return _Value([_convert(item, file, count) for item in node.value], place)
    try:
        value = yaml.SafeLoader("").construct_object(node, deep=True)
    except Exception:  # an unknown tag; a date such as 2026-13-01; a tag on a text that it does not fit: any kind
        raise UserError(f"recipe {place}: {_shown(node.value)} cannot be read as a value") from None
    half = lone_surrogate(value) if isinstance(value, str) else None
    if half is not None:
        raise UserError(f"recipe {place}: the text has {half}")
    return _Value(value, place)


def _bare(value: _Value) -> Any:
    """The value without the places."""
    content = value.content
    if isinstance(content, dict):
        return {name: _bare(item) for name, item in content.items()}
    return [_bare(item) for item in content] if isinstance(content, list) else content


def _apply_override(tree: _Value, override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise UserError(f"override {override!r}: write field=value, for example optimizer.learning_rate=1e-4")
    place = f"{_OVERRIDE}{override}"
    *parents, last = name.strip().split(".")
    for parent in parents:
        child = tree.content.get(parent)
        if child is None or not isinstance(child.content, dict):
            child = tree.content[parent] = _Value({}, place)
        tree = child
    tree.content[last] = _replace_place(_parse(text, place), place) if text.strip() else _Value(None, place)


def _replace_place(value: _Value, place: str) -> _Value:
    """Lines mean nothing in an override."""
    content = value.content
    if isinstance(content, dict):
        content = {name: _replace_place(item, place) for name, item in content.items()}
    elif isinstance(content, list):
        content = [_replace_place(item, place) for item in content]
    return _Value(content, place)


def _build(cls: type[Recipe], tree: _Value, prefix: str) -> Recipe:
    if not isinstance(tree.content, dict):
        raise _wrong(tree, prefix.rstrip("."), "a table of fields")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name, value in tree.content.items():
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1, cutoff=0.5)
            advice = f"did you mean {prefix}{near[0]}?" if near else f"there are: {', '.join(fields)}"
            raise UserError(f"recipe {value.place}: unknown field {prefix}{name}; {advice}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in tree.content:
            raise UserError(f"recipe {tree.place}: {prefix}{name} is missing")
    values = {name: _read(hints[name], value, prefix + name) for name, value in tree.content.items()}
    try:
        return cls(**values)
    except ValueError as error:  # a UserError is one: of a value that the class has others look at
        section = f"{prefix.rstrip('.')}: " if prefix else ""
        raise UserError(f"recipe {_place_of(str(error), tree)}: {section}{error}") from None


def _place_of(message: str, tree: _Value) -> str:
    """Where the values stand that a check complains of: the first override that it names, or the table."""
    named = (_find(tree, name) for name in _WORDS.findall(message))
    places = (value.place for value in named if value is not None)
    return next((place for place in places if place.startswith(_OVERRIDE)), tree.place)


def _find(tree: _Value, name: str) -> _Value | None:
    """The value of a dotted field; None where it is not given."""
    for part in name.split("."):
        found = tree.content.get(part) if isinstance(tree.content, dict) else None
        if found is None:
            return None
        tree = found
    return tree


def _read(kind: Any, value: _Value, name: str) -> Any:
    """``value`` as an instance of the annotation ``kind``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value.content is None and type(None) in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _read(kind, value, name)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _build(kind, value, f"{name}.")
    if origin is tuple:
        if not isinstance(value.content, list):
            raise _wrong(value, name, f"a list, each item {_NAMES.get(arguments[0], arguments[0])}")
        return tuple(_read(arguments[0], item, f"{name}[{i}]") for i, item in enumerate(value.content))
    if origin is typing.Literal:
        if value.content in arguments:
            return value.content
        options = [str(option) for option in arguments]
        near = difflib.get_close_matches(str(value.content), options, n=1, cutoff=0.5)
        advice = f"; did you mean {near[0]}?" if near else ""
        raise _wrong(value, name, f"one of {', '.join(options)}", advice)
    return _read_scalar(kind, value, name)


def _read_scalar(kind: type, value: _Value, name: str) -> Any:
    content = value.content
    if kind is float and not isinstance(content, bool):
        try:
            number = float(content)  # YAML 1.1 reads 1e-4 (no dot) as text
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif isinstance(content, kind) and not (kind is int and isinstance(content, bool)):
        if not isinstance(content, int) or abs(content) < _MOST_INT:
            return content
        raise _wrong(value, name, "a whole number of at most 64 bits")
    raise _wrong(value, name, _NAMES[kind])


_OVERRIDE = "override "  # how the place of one begins
_WORDS = re.compile(r"\w+(?:\.\w+)*")
_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_MOST_INT = 2**63
_LONGEST_SHOWN = 100  # characters of a value in a message


def _wrong(value: _Value, name: str, wanted: str, advice: str = "") -> UserError:
    shown = "a table" if isinstance(value.content, dict) else "a list" if isinstance(value.content, list) else None
    return UserError(
        f"recipe {value.place}: {name} must be {wanted}, not {shown or _shown(value.content)}{advice}"
    )


def _shown(value: Any) -> str:
    """The value as it stands in a message."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > _LONGEST_SHOWN * 3:
        return f"one of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
