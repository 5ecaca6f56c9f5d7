"""Tables and numbered lists in chains: which step a row, a column or an item is about. Part of :mod:`.reading`."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator, Sequence

from thinkprm_jax.protocol import wording
from thinkprm_jax.protocol.chain_parts import StepMention, StepRole

_ROW = 2000  # characters of a row that are looked at
_HEAD = 8  # lines above a row that may be the head of its table


class ChainTables:
    """The rows of a chain, each read once.

    Args:
      lines: where the lines of the chain begin. numbers: the steps that a cell such as `2` or `1-3` names.
    """

    def __init__(self, chain: str, lines: Sequence[int], numbers: Callable[[str], Sequence[int]]) -> None:
        self._chain, self._lines, self._numbers = chain, lines, numbers
        self._rows: dict[int, list[tuple[int, int, Sequence[int]]]] = {}

    def steps(self, line: int, place: int) -> Sequence[int] | None:
        """Of the row that begins at ``line``, whatever the order of the rows; or of the column that ``place`` is
        in, where the head names steps."""
        if line not in self._rows:
            self._rows[line] = self._read(line)
        return next((steps for start, end, steps in self._rows[line] if start <= place < end), None)

    def _read(self, line: int) -> list[tuple[int, int, Sequence[int]]]:
        """(start, end, steps) of the parts of a row that are about steps."""
        cells = self._cells(line)
        first = cells[0][2] if cells else None
        named = next((match for *_, match in cells if match and match["word"]), first)
        if named is not None:
            return [(line, line + _ROW, self._numbers(named["number"]))]
        row = bisect.bisect_left(self._lines, line) if cells else 0
        above = self._lines[max(0, row - _HEAD) : row]
        heads = next((heads for start in above if (heads := self._cells(start))), [])
        parts = zip(cells, (match for *_, match in heads), strict=False)
        return [(a, b, self._numbers(head["number"])) for (a, b, _), head in parts if head]

    def _cells(self, line: int) -> list[tuple[int, int, re.Match[str] | None]]:
        """(start, end, the step that it names) of the cells of a row, if the line is one."""
        if not wording.ROW.match(self._chain, line):
            return []
        after = bisect.bisect_right(self._lines, line)
        end = self._lines[after] - 1 if after < len(self._lines) else len(self._chain)
        found = wording.CELL.finditer(self._chain, line, min(end, line + _ROW))
        cells = [(cell.start(), cell.end(), wording.STEP_CELL.fullmatch(cell[1])) for cell in found]
        return cells[1:] if cells and not self._chain[line : cells[0][1] - 1].strip() else cells


def list_items(chain: str, start: int, end: int, boxes: Sequence[int]) -> Iterator[StepMention]:
    """The items 1, 2, ... of the outermost list between two places, which may begin again once its items are
    judged. boxes: where verdicts begin."""
    last, form, judged = 0, "", 0
    for match in wording.ITEM.finditer(chain, start, end):
        number = int(match["number"])
        begins = number == 1 and (last == 0 or bisect.bisect_left(boxes, match.start()) - judged > 1)
        if begins:
            form, judged = match["form"], bisect.bisect_left(boxes, match.start())
        if begins or (number == last + 1 and match["form"] == form):
            last = number
            yield StepMention(match.start(), match.end(), (number,), StepRole.LABEL, True)
