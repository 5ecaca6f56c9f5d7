"""An engine without models: a function says what is written, another what it is worth. One id is one character."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from thinkprm_jax.search.engine import Continuation, Judgement, Piece, Problem

# (problem, solution so far, how many continuations of it were asked before in this call) -> what comes next.
# Text that ends with a blank line is a step; anything else ends the solution.
Write = Callable[[str, str, int], str]
Score = Callable[[str, str], Sequence[float]]


class ScriptedEngine:
    """Attributes: asked, judged: what every call of :meth:`generate` and :meth:`verify` was given."""

    side_by_side = False

    def __init__(self, write: Write, score: Score = lambda problem, text: [0.5]) -> None:
        self._write, self._score = write, score
        self.asked: list[list[Continuation]] = []
        self.judged: list[list[tuple[Problem, str]]] = []
        self.failing: set[str] = set()  # problems whose prompt cannot run
        self.unjudged: set[str] = set()  # texts that get no verdict

    def generate(self, continuations: Iterable[Continuation | None]) -> Iterator[tuple[int, Piece]]:
        continuations = [item for item in continuations if item is not None]
        self.asked.append(continuations)
        before: Counter[tuple[str, str]] = Counter()
        pieces = []
        for continuation in continuations:
            start = "".join(map(chr, continuation.prefix))
            key = continuation.problem.text, start
            pieces.append(self._piece(continuation, start, before[key]))
            before[key] += 1
        yield from reversed(list(enumerate(pieces)))  # the order is nobody's promise

    def _piece(self, continuation: Continuation, start: str, number: int) -> Piece:
        if continuation.problem.text in self.failing:
            return Piece(error="the prompt does not fit")
        text = start
        while True:
            step = self._write(continuation.problem.text, text, number)
            text += step
            finish = "step" if step.endswith("\n\n") else "stop"
            if finish == "stop" or continuation.one_step or len(text) - len(start) >= continuation.max_tokens:
                break
        if len(text) - len(start) > continuation.max_tokens:
            text, finish = text[: len(start) + continuation.max_tokens], "length"
        elif finish == "step" and not continuation.one_step:
            finish = "length"
        ids = tuple(map(ord, text[len(start) :]))
        return Piece(ids, text, finish, len(ids))  # type: ignore[arg-type]

    def verify(self, solutions: Iterable[tuple[Problem, str] | None]) -> Iterator[tuple[int, Judgement]]:
        solutions = [solution for solution in solutions if solution is not None]
        if solutions:
            self.judged.append(solutions)
        for index, (problem, text) in reversed(list(enumerate(solutions))):
            if text in self.unjudged:
                yield index, Judgement(tokens=5, error="nothing to read")
            else:
                yield index, Judgement(tuple(self._score(problem.text, text)), tokens=10)


def branches(tree: dict[str, Sequence[str]]) -> Write:
    """Writes from a table: solution so far -> what its 1st, 2nd, ... continuation says (in turn)."""

    def write(problem: str, text: str, number: int) -> str:
        options = tree[text]
        return options[number % len(options)]

    return write


def prefix_of(best: str, good: float = 0.9, bad: float = 0.1) -> Score:
    """``good`` for beginnings of ``best``, ``bad`` for all other texts."""
    return lambda problem, text: [good if best.startswith(text) else bad]
