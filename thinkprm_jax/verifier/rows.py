"""Verdicts on rows, each of which has one solution or several."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.records.inputs import SolutionRow
from thinkprm_jax.records.verdicts import VerdictRow
from thinkprm_jax.verifier.base import Verdict, Verifier


@dataclass(frozen=True)
class JudgedRow:
    """A row and the verdicts on its solutions, in order; each says where its steps stand in a text."""

    row: SolutionRow
    verdicts: tuple[Verdict, ...]

    def record(self, stamp: Mapping[str, Any]) -> VerdictRow:
        """As it stands in a file; stamp: the settings of the verifier."""
        solutions: Sequence[Sequence[str] | None] = self.row.solutions
        if self.row.spans is None:  # the steps stand in the row
            solutions = [None] * len(self.verdicts)
        pairs = zip(self.verdicts, solutions, strict=True)
        return VerdictRow(self.row, tuple(verdict.record(steps) for verdict, steps in pairs), stamp)


def judge_rows(
    verifier: Verifier,
    rows: Iterable[tuple[int, SolutionRow]],
    on_verdict: Callable[[Verdict], object] = lambda verdict: None,
) -> Iterator[tuple[int, JudgedRow]]:
    """(number, judged row) as they are finished. Rows are taken as there is room for their solutions.

    Args:
      rows: with numbers of which no two are the same.
      on_verdict: told of each verdict at once; its row may have others that are not there yet.
    """
    open_rows: dict[int, tuple[SolutionRow, dict[int, Verdict]]] = {}
    places: dict[int, tuple[int, int]] = {}  # item -> row, and which of its solutions it is
    done: collections.deque[tuple[int, JudgedRow]] = collections.deque()

    def finish(number: int) -> None:
        row, verdicts = open_rows.pop(number)
        done.append((number, JudgedRow(row, tuple(verdicts[place] for place in sorted(verdicts)))))

    def items() -> Iterator[tuple[str, Sequence[str]]]:
        taken = 0
        for number, row in rows:
            open_rows[number] = row, {}
            if not row.solutions:
                finish(number)  # a row without completions
            for place, steps in enumerate(row.solutions):
                places[taken] = number, place
                taken += 1
                yield row.problem, steps

    for item, verdict in verifier.verify(items()):
        number, place = places.pop(item)
        row, verdicts = open_rows[number]
        if row.spans:
            verdict = dataclasses.replace(verdict, step_spans=row.spans[place] or None)
        verdicts[place] = verdict
        on_verdict(verdict)
        if len(verdicts) == len(row.solutions):
            finish(number)
        while done:
            yield done.popleft()
    yield from done
