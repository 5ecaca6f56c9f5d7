"""Sizes that arrays are rounded up to: few, so that few programs are compiled."""

from __future__ import annotations


def length_buckets(smallest: int, largest: int) -> tuple[int, ...]:
    """smallest, 1.5 x, 2 x, 3 x, 4 x, ... up to ``largest``, which is always the last."""
    sizes: list[int] = []
    size = smallest
    while size < largest:
        sizes.append(size)
        if size * 3 // 2 < largest and size * 3 % 2 == 0:
            sizes.append(size * 3 // 2)
        size *= 2
    return (*sizes, largest)


def coarse_buckets(smallest: int, largest: int, factor: int = 2) -> tuple[int, ...]:
    """smallest, factor x, factor^2 x, ... up to ``largest``, which is always the last."""
    sizes: list[int] = []
    size = smallest
    while size < largest:
        sizes.append(size)
        size *= factor
    return (*sizes, largest)


def multiple(value: int, unit: int) -> int:
    """``value`` rounded up to a multiple of ``unit``."""
    return -(-value // unit) * unit
