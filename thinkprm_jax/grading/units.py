"""Units of measure: what they measure, and how large they are."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """A unit, or a product of powers of some.

    Attributes:
      dimension: (what it measures, power), in the order of their names; () for a bare number.
      size: in the base unit of the dimension.
    """

    dimension: tuple[tuple[str, int], ...]
    size: Fraction = Fraction(1)


# dimension: {size in its base unit: names}. Only names that nobody uses for variables, beside SHORT.
# fmt: off
_TABLE: dict[str, dict[str, str]] = {
    "length": {
        "1": "meter meters metre metres", "1/100": "cm centimeter centimeters centimetre centimetres",
        "1/1000": "mm millimeter millimeters millimetre millimetres", "1/10": "dm decimeter decimeters",
        "1/1000000000": "nm nanometer nanometers",
        "1000": "km kilometer kilometers kilometre kilometres", "0.0254": "in inch inches",
        "0.3048": "ft foot feet",
        "0.9144": "yd yds yard yards", "1609.344": "mi mile miles",
    },
    "mass": {
        "1": "gram grams", "1000": "kg kgs kilogram kilograms", "1/1000": "mg milligram milligrams",
        "453.59237": "lb lbs pound pounds", "28.349523125": "oz ounce ounces", "1000000": "ton tons tonne tonnes",
    },
    "time": {
        "1": "sec secs second seconds", "1/1000": "ms millisecond milliseconds", "60": "min mins minute minutes",
        "3600": "hr hrs hour hours", "86400": "day days", "604800": "week weeks",
    },
    "months": {"1": "month months", "12": "yr yrs year years"},
    "length^3": {
        "1/1000": "liter liters litre litres", "1/1000000": "ml mL milliliter milliliters",
        "0.003785411784": "gal gallon gallons",
    },
    "length^2": {"4046.8564224": "acre acres", "10000": "hectare hectares ha"},
    "money": {"1": "dollar dollars USD", "1/100": "cent cents"},
    "euro": {"1": "euro euros"},
    "temperature": {"1": "celsius"},
    "fahrenheit": {"1": "fahrenheit"},
    "frequency": {"1": "Hz hertz", "1000": "kHz", "1000000": "MHz"},
    "energy": {"1": "joule joules", "1000": "kJ", "3600000": "kWh"},
    "power": {"1": "watt watts", "1000": "kW"},
    "force": {"1": "newton newtons"},
    "pressure": {"1": "Pa pascal pascals", "1000": "kPa"},
    "amount": {"1": "mol mole moles"},
}
# One letter: a unit only where it is set upright behind a number (`5\mathrm{m}`).
_SHORT: dict[str, tuple[str, str]] = {
    "m": ("length", "1"), "g": ("mass", "1"), "s": ("time", "1"), "h": ("time", "3600"), "L": ("length^3",
    "1/1000"),
    "l": ("length^3", "1/1000"), "N": ("force", "1"), "J": ("energy", "1"), "W": ("power", "1"),
    "V": ("voltage", "1"),
    "K": ("kelvin", "1"), "t": ("mass", "1000000"),
}
# fmt: on


def _unit(dimension: str, size: str) -> Unit:
    name, _, power = dimension.partition("^")
    return Unit(((name, int(power or 1)),), Fraction(size))


_UNITS = {
    name: _unit(dimension, size)
    for dimension, sizes in _TABLE.items()
    for size, names in sizes.items()
    for name in names.split()
}
_SPEEDS = {
    "mph": Unit((("length", 1), ("time", -1)), Fraction("1609.344") / 3600),
    "kmh": Unit((("length", 1), ("time", -1)), Fraction(1000, 3600)),
    "kph": Unit((("length", 1), ("time", -1)), Fraction(1000, 3600)),
}
_SHORT_UNITS = {name: _unit(dimension, size) for name, (dimension, size) in _SHORT.items()}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_PIECE = re.compile(
    r"\s*(/|per(?![A-Za-z])|\\cdot(?![A-Za-z])|\*)?\s*(?:(square|sq\.?|cubic|cu\.?)(?![A-Za-z])\s*)?"
    r"([A-Za-z]+)(?:\s*\^\s*\{?\s*(-?[1-6])\s*\}?|(?<=m)([23])(?!\d))?"
)
_KNOWN = {**_UNITS, **_SPEEDS, **{name.capitalize(): unit for name, unit in _UNITS.items() if len(name) > 3}}


def is_unit(word: str) -> bool:
    """Whether `word` names a unit of measure wherever it stands behind a number."""
    return word in _KNOWN or word in _POWERS


def read_unit(text: str, short: bool = False) -> Unit | None:
    """The unit that `text` names, all of it: `km/h`, `square feet`, `m^2`; None where it names none.

    short: whether it may begin with a single letter (which was set upright). Behind another unit one is plain.
    """
    dimension: Counter[str] = Counter()
    size = Fraction(1)
    position, first = 0, True
    while position < len(text.rstrip()):
        match = _PIECE.match(text, position)
        if match is None or (first and match[1]) or not (first or match[1]):
            return None
        unit = _KNOWN.get(match[3]) or (_SHORT_UNITS.get(match[3]) if short or not first else None)
        if unit is None:
            return None
        power = int(match[4] or match[5] or _POWERS.get((match[2] or "").rstrip("."), 1))
        power = -power if match[1] in ("/", "per") else power
        for name, exponent in unit.dimension:
            dimension[name] += exponent * power
        size *= unit.size**power
        position, first = match.end(), False
    if first:
        return None
    return Unit(tuple(sorted((name, power) for name, power in dimension.items() if power)), size)


def is_short_unit(text: str) -> bool:
    """Whether `text` is a unit only because it is set upright: `m`, `m/s`, `m^2`."""
    return read_unit(text) is None and read_unit(text, short=True) is not None
