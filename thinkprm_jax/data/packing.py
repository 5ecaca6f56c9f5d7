"""Which examples share a row: several short ones in one row of a fixed length, none cut, none dropped.

Pure functions of lengths. Both return the rows as lists of indices into ``lengths``, and the indices that did not
fit and wait for the next batch, in their order. The oldest one is always taken, so nothing waits for ever.

Padding every example to a row of its own wastes most of the positions where lengths are skewed. What packing asks
of attention (segments, positions that restart) is the model's business.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence

Rows = list[list[int]]

# Rows' worth of examples that :func:`fill_rows` should have to choose from beyond those that it fills: with 25
# examples left, some subset of them fills almost any gap exactly.
LOOK_AHEAD = 8


def fill_rows(lengths: Sequence[int], rows: int, length: int) -> tuple[Rows, list[int]]:
    """The fullest rows, one after the other.

    Each row begins with the oldest waiting example and takes the set of the others that fills its rest best; of
    equally good sets, one with older members. So a batch follows the order of the stream as far as it can, and
    long examples are not put off.

    Args:
      lengths: positions that each waiting example needs, oldest first; none above ``length``.
      rows, length: of the batch.
    """
    left = list(range(len(lengths)))
    filled: Rows = []
    while left and len(filled) < rows:
        oldest, *others = left
        best = _fullest([lengths[place] for place in others], length - lengths[oldest])
        row = [oldest, *(others[choice] for choice in best)]
        filled.append(row)
        taken = set(row)
        left = [place for place in left if place not in taken]
    return filled, left


def _fullest(lengths: Sequence[int], room: int) -> list[int]:
    """The indices of a subset with the largest sum that is at most ``room`` (subset sum by dynamic programming).

    Bit s of ``sums[k]`` says whether some of the first k lengths add up to s. The search stops at the first k that
    fills the room exactly, and leaves out a later length wherever earlier ones do.
    """
    within = (1 << (room + 1)) - 1
    sums = [1]
    for size in lengths:
        sums.append((sums[-1] | sums[-1] << size) & within)
        if sums[-1] >> room & 1:
            break
    total = sums[-1].bit_length() - 1
    chosen: list[int] = []
    for place in range(len(sums) - 2, -1, -1):
        if not sums[place] >> total & 1:
            chosen.append(place)
            total -= lengths[place]
    return chosen[::-1]


def place_in_order(lengths: Sequence[int], rows: int, length: int) -> tuple[Rows, list[int]]:
    """As many of the examples as the rows hold, earlier ones first; where all fit, all of them.

    For batches of a fixed number of examples. Arguments as in :func:`fill_rows`.
    """
    placed = _best_fit(range(len(lengths)), lengths, rows, length)
    if placed is not None:
        return placed, []
    taken: list[int] = []
    waiting: list[int] = []
    placed = []
    for place in range(len(lengths)):
        trial = _best_fit([*taken, place], lengths, rows, length)
        if trial is None:
            waiting.append(place)
        else:
            taken.append(place)
            placed = trial
    return placed, waiting


def _best_fit(places: Iterable[int], lengths: Sequence[int], rows: int, length: int) -> Rows | None:
    """Best fit decreasing: the longest first, each into the fullest row that holds it. None: too few rows."""
    packed: Rows = []
    room: list[tuple[int, int]] = []  # (positions left, row), rising
    for place in sorted(places, key=lambda place: (-lengths[place], place)):
        size = lengths[place]
        slot = next((slot for slot, (left, _) in enumerate(room) if left >= size), None)
        if slot is None:
            if len(packed) == rows:
                return None
            packed.append([place])
            insort(room, (length - size, len(packed) - 1))
        else:
            left, row = room.pop(slot)
            packed[row].append(place)
            insort(room, (left - size, row))
    return sorted(sorted(row) for row in packed)
