"""Generations on disk: one line a chain, in the order of prefixes and chains, appended as they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkprm_jax.collect.recipe import Generated
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.records.jsonl import OrderedOutput


class GenerationStore:
    """The chains of a list of prefixes, as many of each. A chain that is stored is neither lost nor made again.

        FILE            {"prefix", "chain", "problem", "steps", "labels", "source", "text", "tokens", "finish",
                         "error", "teacher"} a line
        FILE.waiting    chains that are finished before their turn

    Args:
      chains: of each prefix.
      teacher: all settings on which a chain depends; stored with each.
    Raises:
      UserError: the file cannot be used, or holds chains of other prefixes or settings.
    """

    def __init__(self, path: Path, prefixes: Sequence[Prefix], chains: int, teacher: Mapping[str, Any]) -> None:
        self._prefixes, self._chains, self._path = prefixes, chains, path
        inputs = [
            {
                "prefix": number,
                "chain": chain,
                "problem": prefix.problem,
                "steps": prefix.steps,
                "labels": prefix.labels,
                "source": prefix.source,
            }
            for number, prefix in enumerate(prefixes)
            for chain in range(chains)
        ]
        self._output = OrderedOutput(path, inputs, {"teacher": teacher})
        self._rows = {row["prefix"] * chains + row["chain"]: row for row in self._output.resumed}
        self.size, self.stored = (
            len(inputs),
            len(self._rows),
        )  # chains there will be at most; there were at the start

    def missing(self, numbers: Iterable[int]) -> list[tuple[int, Prefix, int]]:
        """(key for :meth:`add`, prefix, number of the chain) of what these prefixes lack."""
        return [
            (key, self._prefixes[number], chain)
            for number in numbers
            for chain, key in enumerate(self._keys(number))
            if key not in self._rows
        ]

    def add(self, key: int, generation: Mapping[str, Any]) -> None:
        """generation: text, tokens, finish and error of the chain."""
        self._output.add(key, generation)
        self._rows[key] = dict(generation)

    def generated(self, number: int) -> Generated:
        """A prefix whose chains are all there."""
        rows = [self._rows[key] for key in self._keys(number)]
        texts, tokens, finish = (tuple(row[name] for row in rows) for name in ("text", "tokens", "finish"))
        return Generated(self._prefixes[number], texts, tokens, finish)

    def close(self) -> None:
        self._output.close()

    def __enter__(self) -> GenerationStore:
        return self

    def __exit__(self, *exception: object) -> None:
        missing = self._output.missing
        self.close()
        if missing and len(self._rows) == missing[0]:  # a run that has enough: nothing waits for its turn
            self._path.with_name(self._path.name + ".waiting").unlink(missing_ok=True)

    def _keys(self, number: int) -> range:
        return range(number * self._chains, (number + 1) * self._chains)
