"""Generations on disk: one line a chain, in the order of prefixes and chains, appended as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from thinkprm_jax.collect.recipe import Generated
from thinkprm_jax.collect.spool import PrefixTable
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.records.collection import GenerationRow
from thinkprm_jax.records.job import JobPlan, Sharing
from thinkprm_jax.records.joined_output import JoinedOutput
from thinkprm_jax.records.output import LazyInputs, OrderedOutput
from thinkprm_jax.storage import Location

OnPrefix = Callable[[int, Generated], object]  # takes (number of a prefix, all its chains), in order
MissingChain = tuple[int, Prefix, int]  # key of a chain in the store, its prefix, its number among those of that
_PARTS_A_PROCESS = 2  # a process drains its slots at the end of each


class ChainTable:
    """Of a list of prefixes, as many chains of each: keys of chains, and with what the row of one begins.

    Rows that are given to :meth:`take` in about this order go on to ``on_prefix`` in it, prefix by prefix; in
    memory are those whose turn has not come.

    Args:
      chains: of each prefix.
      on_prefix: takes (number, prefix with its chains).
    """

    def __init__(
        self, prefixes: Sequence[Prefix], chains: int, on_prefix: OnPrefix = lambda number, generated: None
    ) -> None:
        self.prefixes, self.chains, self._on_prefix = prefixes, chains, on_prefix
        self._waiting: dict[int, GenerationRow] = {}
        self._next = 0  # prefix

    def __len__(self) -> int:
        return len(self.prefixes) * self.chains

    def take(self, row: GenerationRow) -> None:
        self._waiting[row.prefix * self.chains + row.chain] = row
        while all(key in self._waiting for key in self.keys(self._next)):
            number, rows = self._next, [self._waiting.pop(key) for key in self.keys(self._next)]
            self._next += 1
            texts, tokens = tuple(row.text for row in rows), tuple(row.tokens for row in rows)
            finish = tuple(row.finish for row in rows)
            self._on_prefix(number, Generated(self.prefixes[number], texts, tokens, finish))

    def keys(self, number: int) -> range:
        return range(number * self.chains, (number + 1) * self.chains)

    def chain(self, key: int) -> MissingChain:
        number, chain = divmod(key, self.chains)
        return key, self.prefixes[number], chain

    def given(self, key: int) -> dict[str, Any]:
        """With what the row of a chain begins."""
        _, prefix, chain = self.chain(key)
        return {
            "prefix": key // self.chains,
            "chain": chain,
            "problem": prefix.problem,
            "steps": tuple(prefix.steps),
            "labels": tuple(prefix.labels),
            "source": prefix.source,
        }

    @property
    def inputs(self) -> LazyInputs:
        if isinstance(self.prefixes, PrefixTable):
            digest = self.prefixes.digest
            return LazyInputs(len(self), self.given, lambda: {"digest": [digest, self.chains]})
        return LazyInputs.digested(len(self), self.given)


class GenerationStore:
    """The chains of a list of prefixes, as many of each. A chain that is stored is neither lost nor made again.

        FILE            :class:`thinkprm_jax.records.GenerationRow` a line
        FILE.waiting    chains that are finished before their turn

    Args:
      table: is given the chains in order, those of an earlier run, too.
      teacher: all settings on which a chain depends; stored with each.
      is_over: whether no more prefixes are wanted.
    Raises:
      UserError: the file cannot be used, or holds chains of other prefixes or settings.

    Attributes:
      stored: chains at the start. size: at the end, at most. say: takes a line for people.
    """

    def __init__(
        self,
        path: Location,
        table: ChainTable,
        teacher: Mapping[str, Any],
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._table, self._teacher, self._is_over = table, teacher, is_over
        inputs = LazyInputs(len(table), table.given)
        self._output = OrderedOutput(path, GenerationRow, inputs, {"teacher": teacher}, on_resumed=table.take)
        self.size, self.stored = len(table), self._output.resumed
        self.say: Callable[[str], object] = print

    def work(self, wave: int) -> Iterator[list[MissingChain]]:
        """What is missing of wave after wave of prefixes, nothing where nothing is, while more is wanted."""
        for start in range(0, len(self._table.prefixes), wave):
            if self._is_over():
                return
            yield self.missing(range(start, min(start + wave, len(self._table.prefixes))))

    def missing(self, numbers: Iterable[int]) -> list[MissingChain]:
        """What these prefixes lack."""
        left = self._output.missing
        keys = (key for number in numbers for key in self._table.keys(number))
        return [self._table.chain(key) for key in keys if key in left]

    def check_teacher(self, teacher: Mapping[str, Any]) -> None:
        """Before the first new chain: the settings with the fingerprints of the teacher's files, which chains to
        come are stored with. UserError where those that are there are of another model of that name."""
        self._output.check_models(teacher=teacher)
        self._teacher = teacher

    def add(self, key: int, text: str, tokens: int, finish: str, error: str | None = None) -> None:
        """A chain; the rest as in :class:`thinkprm_jax.records.GenerationRow`."""
        row = _row(self._table, key, self._teacher, text, tokens, finish, error)
        self._output.add(key, row)
        self._table.take(row)

    def finish(self) -> str:
        """What is missing, in words; "": nothing that others would make."""
        return ""

    def shown(self) -> None:
        """Of a process alone there is nothing more to be shown."""

    def close(self) -> None:
        self._output.close()

    def __enter__(self) -> GenerationStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class SharedGenerations:
    """The same of several processes, each of which makes parts of the chains: see
    :class:`thinkprm_jax.records.joined_output.JoinedOutput`. Parts are begun in order, and a target may be reached
    before all are done; then they stay parts.

    Args:
      wave: prefixes of a part, at most. sharing: how this process takes part. agreed: of the recipe.
    """

    def __init__(
        self,
        path: Location,
        table: ChainTable,
        teacher: Mapping[str, Any],
        is_over: Callable[[], bool],
        wave: int,
        sharing: Sharing,
        agreed: Mapping[str, Any],
    ) -> None:
        self._table, self._teacher, self._sharing, self._is_over = table, teacher, sharing, is_over
        self._fed, self._left = 0, ""
        plan = JobPlan(
            {"teacher": teacher},
            sharing.parts_of(len(table), wave * table.chains, _PARTS_A_PROCESS),
            lease=sharing.lease,
            agreed={"recipe": agreed},
        )
        self._output = JoinedOutput(path, GenerationRow, table.inputs, plan)
        self.size, self.stored = len(table), self._output.state().rows
        self.say: Callable[[str], object] = print

    def work(self, wave: int) -> Iterator[list[MissingChain]]:
        """What is missing of one part after the other, as long as there are any and more is wanted. Where others
        hold all that is left, it waits for them."""
        pause, said = min(self._sharing.lease / 6, 5.0), False
        while not self._feed():
            if self._output.wait(others=False):
                part = self._output.next_part()
                if part:
                    yield [self._table.chain(key) for key in part]
                continue
            state = self._output.state()
            if state.parts == self._output.parts:
                continue  # the last ones, this very moment
            if not self._sharing.waits:
                self._left = self._output.left
                return
            if not said:
                said = True
                self.say(f"{self._output.file}: {state.waiting_for}")
            time.sleep(pause)

    def _feed(self) -> bool:
        """Gives on what is done by whatever process; whether no more is wanted, or to come."""
        if not self._fed and self._output.joined:
            self._fed = self._output.parts
            self._give(self._output.rows())
        while not self._is_over() and self._fed < self._output.ready:
            self._give(self._output.rows_of(self._fed))
            self._fed += 1
        return self._is_over() or self._fed == self._output.parts

    def _give(self, rows: Iterator[GenerationRow]) -> None:
        for row in rows:
            if self._is_over():
                return
            self._table.take(row)

    def check_teacher(self, teacher: Mapping[str, Any]) -> None:
        """As of :class:`GenerationStore`."""
        self._output.check_models(teacher=teacher)
        self._teacher = teacher

    def add(self, key: int, text: str, tokens: int, finish: str, error: str | None = None) -> None:
        """As of :class:`GenerationStore`."""
        self._output.add(key, _row(self._table, key, self._teacher, text, tokens, finish, error))

    def finish(self) -> str:
        """What is missing, in words; "": nothing that is wanted. Where all parts are there, they become a file."""
        self._output.join(self._sharing.waits)
        return self._left

    def shown(self) -> tuple[int, str]:
        """As of :class:`JoinedOutput`."""
        return self._output.shown()

    def close(self) -> None:
        self._output.close()


def _row(
    table: ChainTable, key: int, teacher: Mapping[str, Any], text: str, tokens: int, finish: str, error: str | None
) -> GenerationRow:
    return GenerationRow(**table.given(key), text=text, tokens=tokens, finish=finish, error=error, teacher=teacher)
