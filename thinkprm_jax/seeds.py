"""What a seed may be, wherever somebody gives one: one check."""

from __future__ import annotations

import numbers
from typing import Any

# numpy takes (seed, epoch) apart into words of 32 bits, and a key of JAX is made of 32: a larger seed would be
# that of another run or of another epoch.
MOST_SEED = 2**32 - 1


def check_seeds(section: Any, *names: str) -> None:
    """For ``__post_init__``: ValueError for a field of ``section`` that is no seed.

    Example:

        check_seeds(recipe, "seed", "prm_seed")
    """
    for name in names:
        check_seed(getattr(section, name), name)


def check_seed(seed: object, name: str = "seed") -> None:
    """ValueError unless it is a whole number from 0 to MOST_SEED."""
    value = int(seed) if isinstance(seed, numbers.Integral) and not isinstance(seed, bool) else -1
    if not 0 <= value <= MOST_SEED:
        raise ValueError(f"{name} is {seed!r}, it must be a whole number from 0 to {MOST_SEED}")
