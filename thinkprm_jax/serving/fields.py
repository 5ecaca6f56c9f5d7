"""The fields of a request's body: each is taken with its type; what is wrong with one is said with its name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.jsonl import parse_line, type_name


class ServingError(Exception):
    """The answer to a request that failed.

    Attributes:
      status: of HTTP. field: of the body, dotted; None: it is about none.
      kind: for programs: "invalid_request", "unjudgeable", "unauthorized", "not_found", "overloaded", "deadline",
        "unavailable" or "internal".
      retry_after: seconds; None: trying again is of no use.
    """

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        kind: str = "invalid_request",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.kind, self.retry_after = status, field, kind, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """In the form of OpenAI's errors."""
        error = {"message": str(self), "type": self.kind, "param": self.field, "code": self.status}
        return {"error": error}


def invalid(field: str, what: str) -> ServingError:
    """A field that cannot be taken: the message is its name and ``what``."""
    return ServingError(400, f"{field} {what}", field)


def parse_body(body: bytes) -> BodyFields:
    """The fields of a JSON object.

    Raises:
      ServingError: 400, it is none.
    """
    try:
        return BodyFields(parse_line(body, "the body", finite=True))
    except UserError as error:
        raise ServingError(400, str(error), "body") from None


_MISSING = object()


class BodyFields:
    """A JSON object whose fields are taken one by one; :meth:`end` then refuses what nobody took. A field that is
    null counts as not there.

    Args:
      content: the object. prefix: of the names in messages ("messages[0].").
    """

    def __init__(self, content: Mapping[str, Any], prefix: str = "") -> None:
        self._content, self._prefix = content, prefix
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._content.get(name) is not None

    def name(self, name: str) -> str:
        return self._prefix + name

    def take(self, name: str, default: Any = _MISSING) -> Any:
        """Any JSON; without a default it must be there."""
        self._taken.add(name)
        value = self._content.get(name)
        if value is None and default is _MISSING:
            raise invalid(self.name(name), "is missing")
        return default if value is None else value

    def text(self, name: str, default: Any = _MISSING, most: int | None = None) -> Any:
        value = self.take(name, default)
        return value if value is default else check_text(value, self.name(name), most)

    def whole(self, name: str, default: Any = _MISSING, low: int = 0, high: int | None = None) -> Any:
        value = self.take(name, default)
        return value if value is default else check_whole(value, self.name(name), low, high)

    def number(self, name: str, default: Any = _MISSING, low: float = 0.0, high: float = math.inf) -> Any:
        value = self.take(name, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise invalid(self.name(name), f"must be a number, it is {type_name(value)}")
        if not low <= value <= high:
            bounds = f"{low:g} on" if high == math.inf else f"{low:g} to {high:g}"
            raise invalid(self.name(name), f"is {_shown(value)}, it must be from {bounds}")
        try:
            return float(value)
        except OverflowError:
            raise invalid(self.name(name), "is a huge number") from None

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise invalid(self.name(name), f"must be true or false, it is {type_name(value)}")
        return value

    def items(self, name: str, default: Any = _MISSING, most: int | None = None) -> Any:
        """A list."""
        value = self.take(name, default)
        return value if value is default else check_list(value, self.name(name), most)

    def inner(self, name: str, default: Any = _MISSING) -> Any:
        """The fields of an object in it."""
        value = self.take(name, default)
        return value if value is default else fields_of(value, self.name(name))

    def neutral(self, name: str, *values: object) -> None:
        """A field that can be given and not be honoured: it must have one of ``values``, which change nothing."""
        value = self.take(name, None)
        if value is not None and not any(
            isinstance(value, bool) is isinstance(each, bool) and value == each for each in values
        ):
            raise invalid(self.name(name), "is not supported by this server: leave it out")

    def ignore(self, names: Collection[str]) -> None:
        """BodyFields that change nothing here."""
        self._taken.update(names)

    def end(self) -> None:
        """Refuses the fields that nobody took."""
        unknown = sorted(
            name for name, value in self._content.items() if name not in self._taken and value is not None
        )
        if unknown:
            raise invalid(self.name(unknown[0]), "is no field of this request")


def fields_of(value: Any, name: str) -> BodyFields:
    if not isinstance(value, dict):
        raise invalid(name, f"must be an object, it is {type_name(value)}")
    return BodyFields(value, f"{name}.")


def check_text(value: Any, name: str, most: int | None = None) -> str:
    if not isinstance(value, str):
        raise invalid(name, f"must be text, it is {type_name(value)}")
    if most is not None and len(value) > most:
        raise invalid(name, f"has {len(value):,} characters, {most:,} are allowed")
    return value


def check_whole(value: Any, name: str, low: int = 0, high: int | None = None) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(name, f"must be a whole number, it is {type_name(value)}")
    if value < low or (high is not None and value > high):
        raise invalid(name, f"is {_shown(value)}, it must be from {low} {'on' if high is None else f'to {high}'}")
    return value


def _shown(value: float) -> str:
    """Python refuses to print a whole number of thousands of digits."""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "a huge number"
    return f"{float(value):g}"


def check_list(value: Any, name: str, most: int | None = None) -> Sequence[Any]:
    if not isinstance(value, list):
        raise invalid(name, f"must be a list, it is {type_name(value)}")
    if most is not None and len(value) > most:
        raise invalid(name, f"has {len(value):,} entries, {most:,} are allowed")
    return value


def check_texts(value: Any, name: str, most: int | None = None, chars: int | None = None) -> list[str]:
    """A list of texts."""
    return [check_text(item, f"{name}[{i}]", chars) for i, item in enumerate(check_list(value, name, most))]
