"""An output that is a folder of parts, written by any number of processes.

OUT/part-00003-of-00008.jsonl    rows of the fourth eighth of the inputs, whole or not there
OUT/.job/job.json                what the job is: see :mod:`thinkprm_jax.records.job`
OUT/.job/claims/                 who works on which part: see :mod:`thinkprm_jax.records.claims`
OUT/.job/work/                   rows of parts that are not done
OUT/.job/done/                   what there is to count in those that are
"""

from __future__ import annotations

import bisect
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.claims import Claim, Claims
from thinkprm_jax.records.datasets import JOB
from thinkprm_jax.records.files import atomic_write, has_lines, read_line_file, remove_lines, write_lines
from thinkprm_jax.records.job import JobPlan, JobState, check_job_models, open_job
from thinkprm_jax.records.output import LazyInputs, OrderedOutput
from thinkprm_jax.records.parts import part_name, write_part
from thinkprm_jax.records.row_source import split_rows
from thinkprm_jax.records.schema import Row
from thinkprm_jax.storage import Location

Kind = TypeVar("Kind", bound=Row)


@dataclass
class _Shard(Generic[Kind]):
    claim: Claim
    rows: range
    output: OrderedOutput[Kind]
    counts: Counter[str]


class ShardedOutput(Generic[Kind]):
    """Rows of one class, one for each input, as the parts of a folder. Used as :class:`OrderedOutput` is, but that
    ``missing`` claims part after part while somebody takes from it.

    Example:

        with ShardedOutput(folder, VerdictRow, inputs, plan) as output:
            while output.wait():
                for index in output.missing:
                    output.add(index, judge(index))

    Args:
      folder: absent, empty, or of such a job.
      inputs: the fields with which each row begins.
    Raises:
      UserError: the folder holds something else, or the job of other inputs or settings.

    Attributes:
      bad: part -> what is wrong with one of its inputs; no row of such a part is made.
    """

    def __init__(
        self,
        folder: Location,
        kind: type[Kind],
        inputs: LazyInputs,
        plan: JobPlan,
        tally: Callable[[Kind], Mapping[str, int]] = lambda row: {},
    ) -> None:
        self.folder, self._kind, self._inputs, self._plan, self._tally = folder, kind, inputs, plan, tally
        self._job = folder / JOB
        made = open_job(folder, kind, inputs, plan)
        self.form, self._columns = made["form"], made["columns"]
        self._ranges = split_rows(range(len(inputs)), made["parts"])
        self._starts = [rows.start for rows in self._ranges]
        self._models: Mapping[str, Mapping[str, Any]] = {}
        self._mine: dict[int, _Shard[Kind]] = {}
        self.bad: dict[int, UserError] = {}
        self._done: set[int] = set()
        self._claims = Claims(self._job / "claims", plan.lease)
        process, processes = plan.process
        first = process * len(self._ranges) // processes
        parts = range(len(self._ranges))
        self._order = [*parts[first:], *parts[:first]]

    def check_models(self, **fields: Mapping[str, Any]) -> None:
        """Before the first new row: UserError where rows that are there were made by models with other files of
        the same name. Fields as of :meth:`OrderedOutput.check_models`."""
        self._models = fields
        check_job_models(self.folder, self._kind, fields)

    # Rows

    @property
    def missing(self) -> Iterator[int]:
        """Indexes of inputs without a row, of one part after the other; each part is claimed when its turn comes.
        Ends where no part is free."""
        while part := self.next_part():
            yield from part

    def next_part(self) -> list[int]:
        """Claims a part that is free; indexes of its inputs without a row. Empty where none is free."""
        shard = self._claim_next()
        return [] if shard is None else [shard.rows[index] for index in shard.output.missing]

    def beside(self, index: int, ending: str) -> Location:
        """A file of lines beside the rows of the part of an input, which this process holds: another process that
        takes the part over takes it over, too (see :class:`JobPlan`)."""
        claim = self._mine[self._part_of(index)].claim
        work = self._work(claim.part, claim.number)
        return work.with_name(work.name + ending)

    def _part_of(self, index: int) -> int:
        return bisect.bisect_right(self._starts, index) - 1

    def add(self, index: int, row: Kind) -> list[tuple[int, Kind]]:
        """Takes in the row of an input; returns (index, row) of those whose turn in their part has come, in order.

        Raises:
          UserError: a file cannot be written; what is there is whole.
        """
        shard = self._mine.get(self._part_of(index))
        if shard is None or self._is_lost(shard):
            return []  # whoever has taken the part over makes it
        written = shard.output.add(index - shard.rows.start, row)
        shard.counts.update(self._tally(row))
        shard.claim.done += 1
        if not shard.output.missing:
            self._finish(shard)
        return [(shard.rows.start + place, row) for place, row in written]

    def _claim_next(self) -> _Shard[Kind] | None:
        self._look()
        holders = self._claims.holders(self._done)
        for part in self._order:
            if part in self._done or part in self._mine or part in self.bad:
                continue
            number, holder = holders.get(part, (0, None))
            if holder is not None and not self._claims.is_free(part, number, holder):
                continue
            claim = self._claims.take(part, number)
            if claim is None:
                continue
            shard = self._open(claim)
            if shard is not None:
                return shard
        return None

    def _open(self, claim: Claim) -> _Shard[Kind] | None:
        """None where nothing of the part is left to be done."""
        part, rows = claim.part, self._ranges[claim.part]
        try:
            if self._is_made(part):  # finished and given back a moment ago
                self._done.add(part)
                self._claims.release(claim)
                return None
            try:
                self._plan.check(rows)
            except UserError as error:
                self.bad[part] = error
                self._claims.release(claim)
                return None
            given = LazyInputs(
                len(rows), lambda index: self._inputs[rows.start + index], lambda: self._named(rows)
            )
            work = self._adopt(claim)
            output = OrderedOutput(
                work, self._kind, given, self._plan.stamp, self._plan.current, tally=self._tally
            )
            shard = self._mine[part] = _Shard(claim, rows, output, Counter(output.counts))
            claim.done = output.resumed
            output.check_models(**self._models)
        except BaseException:
            self._claims.release(claim)
            raise
        if not output.missing:
            self._finish(shard)
            return None
        return shard

    def _named(self, rows: range) -> Any:
        identity = self._inputs.identity()
        return identity and {"digest": [identity["digest"], rows.start, rows.stop]}

    def _finish(self, shard: _Shard[Kind]) -> None:
        """The part is whole: it gets its name, and nothing of the work on it is left."""
        part = shard.claim.part
        del self._mine[part]
        shard.output.close()
        if not self._is_lost(shard):
            if not self._is_made(part):
                self._make(part, shard)
            self._done.add(part)
            self._clear(part, shard.claim.number)
        self._claims.release(shard.claim)

    def _make(self, part: int, shard: _Shard[Kind]) -> None:
        atomic_write(self._job / "done" / f"{part:05d}.json", json.dumps(dict(shard.counts)))
        work = self._work(part, shard.claim.number)
        if self.form == "jsonl" and isinstance(work, Path):
            work.replace(self._part(part))
        else:
            write_part(read_line_file(work), self._part(part), self.form, self._columns)

    def _is_lost(self, shard: _Shard[Kind]) -> bool:
        if shard.claim.lost and shard.claim.part in self._mine:
            del self._mine[shard.claim.part]
            shard.output.close()
            self._claims.release(shard.claim)
        return shard.claim.lost

    # Files

    def _part(self, part: int) -> Location:
        return self.folder / part_name(part, len(self._ranges), self.form)

    def _is_made(self, part: int) -> bool:
        return self._part(part).exists()

    def _work(self, part: int, number: int) -> Location:
        """Rows of a part that is not done, of the claim with this number."""
        return self._job / "work" / f"{part:05d}.{number:04d}.jsonl"

    def _adopt(self, claim: Claim) -> Location:
        """The file of a claim, with what the one before has left: a copy, since its holder may still write."""
        work, endings = self._work(claim.part, claim.number), ("", ".waiting", *self._plan.beside)
        # First the rows in order: what goes there meanwhile stays among those that wait until it is there. Of each
        # file the last one that there is: whoever had the part before may have died in the middle of this.
        for ending in endings:
            for number in range(claim.number - 1, 0, -1):
                old, new = (
                    place.with_name(place.name + ending) for place in (self._work(claim.part, number), work)
                )
                with contextlib.suppress(FileNotFoundError):  # its holder lives, and is done a moment before us
                    if has_lines(old):
                        write_lines(new, _whole_lines(old))
                        break
        return work

    def _clear(self, part: int, number: int) -> None:
        """Nothing of the work on a part is left."""
        for left in range(1, number + 1):
            work = self._work(part, left)
            for ending in ("", ".waiting", ".index", *self._plan.beside):
                remove_lines(work.with_name(work.name + ending))

    def _clear_all(self) -> None:
        """Every part is done: what is left is of processes that died behind the last row of theirs."""
        folder = self._job / "work"
        for name in [place.name for place in folder.iterdir()] if folder.is_dir() else []:
            place = folder / name
            if place.is_file():
                place.unlink(missing_ok=True)

    # All processes

    def _look(self) -> None:
        names = {place.name for place in self.folder.iterdir()} if self.folder.is_dir() else set()
        count = len(self._ranges)
        self._done |= {part for part in range(count) if part_name(part, count, self.form) in names}

    def state(self) -> JobState:
        """How far all processes are, as far as they have said so."""
        self._look()
        rows, held = sum(len(self._ranges[part]) for part in list(self._done)), {}
        for part, (_, holder) in self._claims.holders(self._done).items():
            if part in self._done or part >= len(self._ranges):
                continue
            rows += self._mine[part].claim.done if part in self._mine else holder.done
            if part not in self._mine and not holder.released:
                held[part] = f"{holder.host}:{holder.content.get('pid', '?')}"
        return JobState(rows, len(self._done), held)

    def shown(self) -> tuple[int, str]:
        """(rows that all processes have, what else is to be said of them), for a line of progress."""
        state = self.state()
        processes = len(set(state.held.values())) + 1
        return state.rows, f"{state.parts} of {self.parts} parts done, {processes} processes"

    @property
    def parts(self) -> int:
        return len(self._ranges)

    def wait(self, others: bool = True, say: Callable[[JobState], object] = lambda state: None) -> bool:
        """Whether there is a part for this process; where others hold all that is left, it waits until all is
        done, or one of them is dead.

        Args:
          others: False: it does not wait. say: is told, once, for whom it waits.
        """
        pause, said = min(self._plan.lease / 6, 5.0), False
        while True:
            self._look()
            holders = self._claims.holders(self._done)
            left = [part for part in self._order if part not in self._done and part not in self.bad]
            if any(part not in holders or self._claims.is_free(part, *holders[part]) for part in left):
                return True
            if not left or not others:
                return False
            if not said:
                said = True
                say(self.state())
            time.sleep(pause)

    @property
    def counts(self) -> Counter[str]:
        """What ``tally`` has counted in all parts that are done."""
        found: Counter[str] = Counter()
        for part in sorted(self._done):
            with contextlib.suppress(OSError, ValueError, UserError):
                found.update(json.loads((self._job / "done" / f"{part:05d}.json").read_bytes()))
        return found

    def close(self) -> None:
        """Gives back what is held; what was taken in stays."""
        try:
            for shard in list(self._mine.values()):
                shard.output.close()
            if len(self._done) == len(self._ranges):
                self._clear_all()
        finally:
            self._mine.clear()
            self._claims.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _whole_lines(place: Location) -> Iterator[bytes]:
    return (line for line in read_line_file(place) if line.endswith(b"\n"))


def part_files(folder: Location) -> Sequence[Location]:
    """The parts that are there, in order."""
    return sorted(place for place in folder.iterdir() if place.name.startswith("part-"))
