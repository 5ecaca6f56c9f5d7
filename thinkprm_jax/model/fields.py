"""Values of a JSON object that somebody else wrote: of the right type and within bounds, or one line with file and
field."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from thinkprm_jax.errors import UserError

MOST = 2**31 - 1  # arrays are indexed with int32
_repr = reprlib.Repr()
_repr.maxstring, _repr.maxlong, _repr.maxother = 60, 40, 60


class Fields:
    """A JSON object, and the name of its file for the messages. null counts as absent.

    Example:

        fields = Fields({"vocab_size": 300}, "config.json")
        fields.whole("vocab_size")  # 300
        fields.number("rms_norm_eps", 1e-6, most=1.0)  # 1e-6

    Every method raises `UserError` for a value of another type, out of bounds, or absent without a default.
    """

    def __init__(self, content: Mapping[str, Any], source: str, inside: str = "") -> None:
        """inside: what the names of the fields begin with, such as ``rope_scaling.``."""
        self.content, self.source, self.inside = content, source, inside

    def has(self, name: str) -> bool:
        return self.content.get(name) is not None

    def whole(self, name: str, default: int | None = None, least: int = 1, most: int = MOST) -> int:
        """A whole number, also one that is written 4096.0."""
        value = self._value(name, default)
        if isinstance(value, float) and value.is_integer():  # false of nan and the infinities
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            up_to = f"of at least {least}" if most == MOST else f"from {least} to {most}"
            raise self.wrong(name, f"a whole number {up_to}")
        return value

    def number(
        self,
        name: str,
        default: float | None = None,
        above: float | None = None,
        least: float = 0.0,
        most: float = 1e30,
    ) -> float:
        """A finite number. above: the bound that it must not touch, in place of ``least``."""
        value = self._value(name, default)
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not known or not (least if above is None else above) <= value <= most or value == above:
            bound = f"of at least {least:g}" if above is None else f"above {above:g}"
            raise self.wrong(name, f"a number {bound}" + ("" if most == 1e30 else f" and at most {most:g}"))
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def words(self, name: str) -> list[str]:
        """A list of strings; [] where there is none."""
        value = self._value(name, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self.wrong(name, "a list of strings")
        return value

    def id(self, name: str) -> int | None:
        """A token's id; old Llamas write -1 for none."""
        return self.whole(name, least=-1) if self.has(name) else None

    def ids(self, name: str) -> int | tuple[int, ...] | None:
        """A token's id, or the ids of several."""
        value = self.content.get(name)
        if not isinstance(value, list):
            return self.id(name)
        return tuple(Fields({name: id}, self.source, self.inside).whole(name, least=-1) for id in value)

    def inner(self, name: str) -> Fields:
        """An object; an empty one where there is none."""
        value = self._value(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(value, self.source, f"{self.inside}{name}.")

    def wrong(self, name: str, wanted: str) -> UserError:
        """The error that says what ``name`` must be."""
        return self.refuse(f"{self.inside}{name} is {shown(self.content.get(name))}, it must be {wanted}")

    def refuse(self, message: str) -> UserError:
        return UserError(f"{self.source}: {message}")

    def _value(self, name: str, default: Any) -> Any:
        if self.has(name):
            return self.content[name]
        if default is None:
            raise self.refuse(f"{self.inside}{name} is missing")
        return default


def shown(value: Any) -> str:
    """A value for a message: short, whatever it is."""
    return _repr.repr(value)
