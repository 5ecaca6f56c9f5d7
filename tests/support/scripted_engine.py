"""An engine without models: a function says what is written, another what it is worth. One id is one character."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from thinkprm_jax.sampler import Handle, StepLoop
from thinkprm_jax.search.engine import Continuation, Judgement, Piece, Problem

T = TypeVar("T")
S = TypeVar("S")

# (problem, solution so far, how many continuations of it were asked before in this step) -> what comes next.
# Text that ends with a blank line is a step; anything else ends the solution.
Write = Callable[[str, str, int], str]
Score = Callable[[str, str], Sequence[float]]


class ScriptedEngine:
    """Answers all that it was asked for at once, in turns.

    Attributes: asked, judged: what every step of the generator and of the verifier answered.
    """

    side_by_side = False

    def __init__(self, write: Write, score: Score = lambda problem, text: [0.5]) -> None:
        self._write, self._score = write, score
        self.asked: list[list[Continuation]] = []
        self.judged: list[list[tuple[Problem, str]]] = []
        self.failing: set[str] = set()  # problems whose prompt cannot run
        self.unjudged: set[str] = set()  # texts that get no verdict
        self._to_write: list[tuple[Continuation, Handle[Piece]]] = []
        self._to_judge: list[tuple[tuple[Problem, str], Handle[Judgement]]] = []
        self.loops = [StepLoop(self._step_writing, self._has_room), StepLoop(self._step_judging, self._has_room)]

    def _has_room(self) -> bool:
        return True

    def generate(self, continuation: Continuation) -> Handle[Piece]:
        return submitted(self.loops[0], self._to_write, continuation)

    def verify(self, problem: Problem, solution: str) -> Handle[Judgement]:
        return submitted(self.loops[1], self._to_judge, (problem, solution))

    def _step_writing(self) -> bool:
        asked, self._to_write = self._to_write, []
        if not asked:
            return False
        self.asked.append([continuation for continuation, _ in asked])
        before: Counter[tuple[str, str]] = Counter()
        pieces = []
        for continuation, _ in asked:
            start = "".join(map(chr, continuation.prefix))
            key = continuation.problem.text, start
            pieces.append(self._piece(continuation, start, before[key]))
            before[key] += 1
        for (_, handle), piece in reversed(list(zip(asked, pieces, strict=True))):  # the order is nobody's promise
            handle.settle(piece)
        return True

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

    def _step_judging(self) -> bool:
        asked, self._to_judge = self._to_judge, []
        if not asked:
            return False
        self.judged.append([solution for solution, _ in asked])
        for (problem, text), handle in reversed(asked):
            handle.settle(self._judgement(problem, text))
        return True

    def _judgement(self, problem: Problem, text: str) -> Judgement:
        if text in self.unjudged:
            return Judgement(tokens=5, error="nothing to read")
        return Judgement(tuple(self._score(problem.text, text)), tokens=10)


def submitted(loop: StepLoop, waiting: list[tuple[T, Handle[S]]], item: T) -> Handle[S]:
    """The handle of an item that is put to those that wait for a step."""
    handle: Handle[S] = Handle(loop)
    with loop.changed:
        waiting.append((item, handle))
        loop.wake()
    return handle


def branches(tree: dict[str, Sequence[str]]) -> Write:
    """Writes from a table: solution so far -> what its 1st, 2nd, ... continuation says (in turn)."""

    def write(problem: str, text: str, number: int) -> str:
        options = tree[text]
        return options[number % len(options)]

    return write


def prefix_of(best: str, good: float = 0.9, bad: float = 0.1) -> Score:
    """``good`` for beginnings of ``best``, ``bad`` for all other texts."""
    return lambda problem, text: [good if best.startswith(text) else bad]
