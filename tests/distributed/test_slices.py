"""Several TPU slices: inside one the mesh follows the interconnect, and one axis alone crosses the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from thinkprm_jax.distributed.mesh import _by_topology
from thinkprm_jax.errors import UserError


@dataclass(frozen=True)
class Chip:
    """What JAX's placement asks of a device."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    process_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0


def chips(slices: int, rows: int = 4, columns: int = 4) -> list:
    """Slices of 4 x 4 chips, four chips a host, as JAX lists them."""
    size = rows * columns
    return [
        Chip(number, number // size, (number % columns, number % size // columns, 0), number // 4)
        for number in range(slices * size)
    ]


@pytest.mark.parametrize(
    ("sizes", "crosses"),
    [((2, 16, 1), 0), ((2, 4, 4), 0), ((4, 8, 1), 0), ((8, 2, 2), 0), ((1, 32, 1), 1), ((1, 8, 4), 1)],
)
def test_one_axis_crosses_the_slices(sizes: tuple[int, int, int], crosses: int) -> None:
    placed = _by_topology(sizes, chips(2))
    assert placed.shape == sizes
    slices = np.vectorize(lambda chip: chip.slice_index)(placed)
    assert len({chip.id for chip in placed.flat}) == 32
    # The crossing axis changes slice once, in its middle; the others never do.
    halves = np.split(slices, 2, axis=crosses)
    assert [set(half.flat) for half in halves] == [{0}, {1}]


def test_slices_that_no_axis_divides_are_refused() -> None:
    with pytest.raises(UserError, match=r"data=1 or fsdp=1 must be a multiple of the 2 slices"):
        _by_topology((1, 1, 32), chips(2))
