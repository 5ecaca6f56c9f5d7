"""Generations on disk: one line a chain, in the order of prefixes and chains, appended as they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thinkprm_jax.collect.recipe import Generated
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.records.collection import GenerationRow
from thinkprm_jax.records.output import LazyInputs, OrderedOutput
from thinkprm_jax.storage import Location


class GenerationStore:
    """The chains of a list of prefixes, as many of each. A chain that is stored is neither lost nor made again.

        FILE            :class:`thinkprm_jax.records.GenerationRow` a line
        FILE.waiting    chains that are finished before their turn

    Args:
      chains: of each prefix.
      teacher: all settings on which a chain depends; stored with each.
    Raises:
      UserError: the file cannot be used, or holds chains of other prefixes or settings.
    """

    def __init__(
        self, path: Location, prefixes: Sequence[Prefix], chains: int, teacher: Mapping[str, Any]
    ) -> None:
        self._prefixes, self._chains, self._teacher = prefixes, chains, teacher
        # Chains at the end, at most, and at the start.
        self.size, self.stored = len(prefixes) * chains, 0
        self._rows: dict[int, GenerationRow] = {}
        inputs = LazyInputs(self.size, self._given)
        self._output = OrderedOutput(path, GenerationRow, inputs, {"teacher": teacher}, on_resumed=self._keep)
        self.stored = len(self._rows)

    def _keep(self, row: GenerationRow) -> None:
        self._rows[row.prefix * self._chains + row.chain] = row

    def check_teacher(self, teacher: Mapping[str, Any]) -> None:
        """Before the first new chain: the settings with the fingerprints of the teacher's files, which chains to
        come are stored with. UserError where those that are there are of another model of that name."""
        self._output.check_models(teacher=teacher)
        self._teacher = teacher

    def missing(self, numbers: Iterable[int]) -> list[tuple[int, Prefix, int]]:
        """(key for :meth:`add`, prefix, number of the chain) of what these prefixes lack."""
        return [
            (key, self._prefixes[number], chain)
            for number in numbers
            for chain, key in enumerate(self._keys(number))
            if key not in self._rows
        ]

    def add(self, key: int, text: str, tokens: int, finish: str, error: str | None = None) -> None:
        """A chain; the rest as in :class:`thinkprm_jax.records.GenerationRow`."""
        row = GenerationRow(
            **self._given(key), text=text, tokens=tokens, finish=finish, error=error, teacher=self._teacher
        )
        self._output.add(key, row)
        self._keep(row)

    def _given(self, key: int) -> dict[str, Any]:
        """With what the row of a chain begins."""
        number, chain = divmod(key, self._chains)
        prefix = self._prefixes[number]
        return {
            "prefix": number,
            "chain": chain,
            "problem": prefix.problem,
            "steps": tuple(prefix.steps),
            "labels": tuple(prefix.labels),
            "source": prefix.source,
        }

    def generated(self, number: int) -> Generated:
        """A prefix whose chains are all there."""
        rows = [self._rows[key] for key in self._keys(number)]
        return Generated(
            self._prefixes[number],
            tuple(row.text for row in rows),
            tuple(row.tokens for row in rows),
            tuple(row.finish for row in rows),
        )

    def close(self) -> None:
        self._output.close()

    def __enter__(self) -> GenerationStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _keys(self, number: int) -> range:
        return range(number * self._chains, (number + 1) * self._chains)
