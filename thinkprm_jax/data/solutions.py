"""The data of a generator: solved problems, as an assistant's answer to the problem.

    <chat template: system turn if any, the problem as the user's turn>  solution  end-of-sentence
    no loss                                                              loss on every token

The prompt is rendered by the model's own chat template, up to where its answer begins, as it will be when the
model is asked (:mod:`thinkprm_jax.search.generator`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from thinkprm_jax.data.batches import TokenisedExample
from thinkprm_jax.data.chains import NOT_ENCODABLE, TOO_LONG, ChainReport, LeftOut
from thinkprm_jax.data.sources import TokenisedDataset, stable_hash
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.records.datasets import iterate_objects
from thinkprm_jax.records.jsonl import get_field
from thinkprm_jax.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class SolvedProblem:
    """A problem, a solution of it, and the answer where it is known."""

    problem: str
    solution: str
    answer: str = ""


class SolutionSource(Protocol):
    """Solved problems by index, each a pure function of it."""

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, index: int) -> SolvedProblem: ...


class DrawnSolutions:
    """Solutions that a function makes from their index, counted from ``start``."""

    def __init__(self, draw: Callable[[int], SolvedProblem], arguments: Sequence[object], start: int = 0) -> None:
        """arguments: what the function depends on, for the fingerprint."""
        self._draw, self._arguments, self._start = draw, [*arguments, start], start

    def __call__(self, index: int) -> SolvedProblem:
        return self._draw(self._start + index)

    @cached_property
    def fingerprint(self) -> str:
        """Of the arguments and, since another version may draw others, of a few solutions."""
        return stable_hash([self._arguments, *(_content(self(index)) for index in range(8))])


class ListedSolutions:
    """Solutions of a list."""

    def __init__(self, solutions: Sequence[SolvedProblem]) -> None:
        self._solutions = solutions

    def __len__(self) -> int:
        return len(self._solutions)

    def __call__(self, index: int) -> SolvedProblem:
        return self._solutions[index]

    @cached_property
    def fingerprint(self) -> str:
        return stable_hash(_content(found) for found in self._solutions)


def read_solved_problems(path: str) -> list[SolvedProblem]:
    """JSON Lines with the fields `problem` and `solution`.

    Raises:
      UserError: the file cannot be read, a row is not as described (names line and field), or there is none.
    """
    solutions = [
        SolvedProblem(get_field(row, "problem", str, place), get_field(row, "solution", str, place))
        for place, row in iterate_objects(path)
    ]
    if not solutions:
        raise UserError(f"{path}: no solutions in it")
    return solutions


class SolutionDataset(TokenisedDataset):
    """Solved problems as rows. One whose row would be longer than ``max_length`` inputs is left out, none is
    cut."""

    def __init__(
        self,
        size: int,
        solution: SolutionSource,
        tokenizer: Tokenizer,
        max_length: int,
        system: str | None = None,
        name: str = "data",
        report: ChainReport | None = None,
    ) -> None:
        super().__init__(size, name, report)
        self._solution, self._tokenizer, self._max_length = solution, tokenizer, max_length
        self._system = system

    def identity(self) -> list[Any]:
        """The solutions, and how one text becomes ids."""
        probe = self._encode(SolvedProblem("48 * 2 = ?", "48 * 2 = 96."))
        return [self._solution.fingerprint, probe]

    def make(self, index: int) -> TokenisedExample:
        try:
            prompt, target = self._encode(self._solution(index))
        except RequestError as error:
            raise LeftOut(NOT_ENCODABLE, str(error)) from error
        ids = np.asarray([*prompt, *target], np.int32)
        if len(ids) - 1 > self._max_length:
            raise LeftOut(TOO_LONG, f"{len(ids)} tokens, the longest row holds {self._max_length + 1}")
        weights = np.ones(len(ids), np.float32)
        weights[: len(prompt)] = 0.0
        return TokenisedExample(ids, weights)

    def _encode(self, solved: SolvedProblem) -> tuple[list[int], list[int]]:
        turns = [] if self._system is None else [{"role": "system", "content": self._system}]
        prompt = self._tokenizer.encode_chat([*turns, {"role": "user", "content": solved.problem}])
        # Not joined with the prompt: what the model writes begins a new piece, as it will when it writes.
        return prompt, [*self._tokenizer.encode_plain(solved.solution, inner=True), self._tokenizer.eos_id]


def _content(solved: SolvedProblem) -> list[str]:
    return [solved.problem, solved.solution]
