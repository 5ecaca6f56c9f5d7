"""Rows that several processes write, and that end as the files that one process alone writes.

    DIR/details.jsonl        all rows, in order: whole, or not there
    DIR/details.jsonl.job/   the parts while it is made, and who works on them; then only what the job was

The parts are those of :class:`~thinkprm_jax.records.sharded_output.ShardedOutput`, and behind the last of them
there is one more to be done: the files themselves, which whoever comes first puts together.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.files import read_line_file, write_lines_whole
from thinkprm_jax.records.job import JobPlan, Sharing, read_job
from thinkprm_jax.records.jsonl import iterate_rows, parse_line
from thinkprm_jax.records.output import LazyInputs, has_rows
from thinkprm_jax.records.output_index import same_rows
from thinkprm_jax.records.sharded_output import Kind, ShardedOutput
from thinkprm_jax.storage import Location

_JOIN_SECONDS = 0.5  # between two looks at whether another process has put the files together


def job_folder(file: Location) -> Location:
    """Where the parts of a file are while several processes make it."""
    return file.with_name(f"{file.name}.job")


def is_shared(file: Location, sharing: Sharing) -> bool:
    """Whether a file is to be made by a job: there are several processes, or there may be, or it was begun so."""
    if sharing.rank.processes > 1 or sharing.parts is not None:
        return True
    return bool(read_job(job_folder(file))) and not file.exists()


class JoinedOutput(ShardedOutput[Kind]):
    """Rows of one class, one for each input, in a file that is there when all of them are.

    Example:

        with JoinedOutput(file, EvaluationRow, inputs, plan) as output:
            while output.wait():
                for index in output.missing:
                    output.add(index, judge(index))
            if output.join():
                rows = list(output.rows())

    Args:
      file: of JSON Lines; a process alone has not begun it.
      files: several in its place: file -> what becomes its line of a line of the parts. ``file`` is the last one.
    Raises:
      UserError: as of :class:`ShardedOutput`; or a process alone has begun the file.
    """

    def __init__(
        self,
        file: Location,
        kind: type[Kind],
        inputs: LazyInputs,
        plan: JobPlan,
        tally: Callable[[Kind], Mapping[str, int]] = lambda row: {},
        files: Mapping[Location, Callable[[bytes], bytes]] | None = None,
    ) -> None:
        self.file, self._files = file, files or {file: bytes}
        folder = job_folder(file)
        known = read_job(folder)
        if not known and has_rows(file):
            raise UserError(
                f"{file}: was begun by a process alone: --processes 1 goes on with it, or give another output"
            )
        identity = json.loads(json.dumps(inputs.identity()))
        if known and file.exists() and not same_rows({"inputs": known["inputs"]}, {"inputs": identity}):
            raise UserError(
                f"{file}: made from another input, or other rows of it; --processes 1 adds rows behind them, or "
                "give another output"
            )
        super().__init__(folder, kind, inputs, plan, tally)

    @property
    def joined(self) -> bool:
        """Whether the files are there."""
        return self.file.exists()

    def _look(self) -> None:
        super()._look()
        if self.joined:  # after that: parts are removed when it is
            self._done.update(range(self.parts))

    def _is_made(self, part: int) -> bool:
        return super()._is_made(part) or self.joined

    def join(self, others: bool = True) -> bool:
        """Puts the files together where all parts are done; whether they are there then.

        Args:
          others: False: where another process is doing it, it is not waited for.
        """
        last = self.parts
        while not self.joined:
            self._look()
            if len(self._done) < last:
                return False
            number, holder = self._claims.holders(self._done).get(last, (0, None))
            is_free = holder is None or self._claims.is_free(last, number, holder)
            claim = self._claims.take(last, number) if is_free else None
            if claim is not None:
                try:
                    self._write_files()
                finally:
                    self._claims.release(claim)
            elif not others:
                return False
            else:
                time.sleep(_JOIN_SECONDS)
        return True

    def _write_files(self) -> None:
        if self.joined:
            return
        places = [self._part(part) for part in range(self.parts)]
        try:
            for file, line_of in self._files.items():
                write_lines_whole(file, (line_of(line) for place in places for line in read_line_file(place)))
        except UserError:
            if not self.joined:  # by one who took this process for dead
                raise
        for place in places:
            place.unlink(missing_ok=True)

    @property
    def left(self) -> str:
        """What is missing, in words."""
        state = self.state()
        return f"{self.file}: {self.parts - state.parts} of {self.parts} parts are missing: {state.waiting_for}"

    # Rows that are there

    def rows(self) -> Iterator[Kind]:
        """All of them, when the file is there."""
        for place, content in iterate_rows(self.file):
            yield self._kind.from_dict(content, place)

    @property
    def ready(self) -> int:
        """How many parts are done from the first one on, without a gap."""
        self._look()
        return next((part for part in range(self.parts) if part not in self._done), self.parts)

    def rows_of(self, part: int) -> Iterator[Kind]:
        """The rows of a part that is done, in order."""
        first = self._ranges[part].start
        for number, line in enumerate(self._lines_of(part), start=1):
            place = f"{self._part(part)}:{number} ({self.file}:{first + number})"
            yield self._kind.from_dict(parse_line(line, place), place)

    def _lines_of(self, part: int) -> Iterator[bytes]:
        rows, taken = self._ranges[part], 0
        try:
            for line in read_line_file(self._part(part)):
                yield line
                taken += 1
        except (OSError, UserError):
            if not self.joined:
                raise
        if taken < len(rows):  # the part has become one with the others, perhaps this very moment
            yield from itertools.islice(read_line_file(self.file), rows.start + taken, rows.stop)
