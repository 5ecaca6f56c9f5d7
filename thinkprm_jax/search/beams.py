"""Candidates of a search: written, looked ahead from, and judged. Of all problems together, each as it comes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence

from thinkprm_jax.search.engine import (
    Beam,
    Continuation,
    Engine,
    Judgement,
    Piece,
    Problem,
    SearchResult,
    SearchSettings,
    beam_seed,
)
from thinkprm_jax.search.voting import Strategy


@dataclasses.dataclass(frozen=True)
class Growth:
    """A candidate to be made.

    Attributes:
      search: which of the searches wants it.
      beam: what it goes on from.
      number: tells the candidates of a problem's round apart.
      to_the_end: of the solution; otherwise it is one step longer than the beam.
      result: where its tokens are counted.
    """

    search: int
    beam: Beam
    number: int
    round: int
    to_the_end: bool
    result: SearchResult


@dataclasses.dataclass(frozen=True)
class _Want:
    """A continuation of a growth's beam, or, once there is a candidate, of what was looked ahead at (``ids``)."""

    growth: Growth
    candidate: Beam | None = None
    ids: tuple[int, ...] = ()
    ahead: int = 0

    def continuation(self, settings: SearchSettings) -> Continuation:
        growth, problem = self.growth, self.growth.beam.problem
        looks = self.candidate is not None
        prefix = self.ids if looks else growth.beam.ids
        return Continuation(
            problem,
            prefix,
            beam_seed(settings.seed, problem.number, growth.round, growth.number, self.ahead),
            settings.max_tokens - len(prefix),
            one_step=looks or not growth.to_the_end,
            greedy=looks,
        )


class Board:
    """What is to be written. One thread may add while another one takes.

    waits: whoever finds the board empty waits for more.
    """

    def __init__(self, waits: bool = False) -> None:
        self.waits = waits
        self._wants: collections.deque[_Want] = collections.deque()

    def add(self, growths: Sequence[Growth]) -> None:
        self._wants.extend(map(_Want, growths))

    def __bool__(self) -> bool:
        return bool(self._wants)

    def look_further(self, want: _Want) -> None:
        self._wants.append(want)

    def taken(self) -> Iterator[_Want | None]:
        """What there is, until there is nothing; while the board waits, None instead of the end."""
        while True:
            if self._wants:
                yield self._wants.popleft()
            elif self.waits:
                yield None
            else:
                return


def grow(engine: Engine, settings: SearchSettings, board: Board) -> Generator[tuple[Growth, Beam], None, None]:
    """(growth, its candidate) as they are written, until the board is empty.

    A beam whose tokens are used up ends as "length" with the step that used them up. With ``settings.lookahead``
    an open candidate is given so many greedy steps more in ``seen``: only what the verifier sees grows.
    """
    while board or board.waits:
        asked: list[_Want] = []
        for index, piece in engine.generate(_continuations(board, settings, asked)):
            want = asked[index]
            beam, ids, is_open = _written(want, piece, settings)
            if is_open and want.ahead < settings.lookahead:
                board.look_further(_Want(want.growth, beam, ids, want.ahead + 1))
            else:
                yield want.growth, beam


def _continuations(board: Board, settings: SearchSettings, asked: list[_Want]) -> Iterator[Continuation | None]:
    for want in board.taken():
        if want is None:
            yield None
        else:
            asked.append(want)
            yield want.continuation(settings)


def _written(want: _Want, piece: Piece, settings: SearchSettings) -> tuple[Beam, tuple[int, ...], bool]:
    """The candidate, the ids that were looked at for it, and whether they can go on."""
    if want.candidate is None:
        beam = _grown(want.growth, piece, settings)
        return beam, beam.ids, beam.finish is None
    want.growth.result.generated_tokens += piece.tokens
    if piece.error is not None:
        return want.candidate, want.ids, False
    ids = want.ids + piece.ids
    is_open = piece.finish == "step" and len(ids) < settings.max_tokens
    return dataclasses.replace(want.candidate, seen=piece.text), ids, is_open


def _grown(growth: Growth, piece: Piece, settings: SearchSettings) -> Beam:
    beam = growth.beam
    growth.result.generated_tokens += piece.tokens
    if piece.error is not None:
        return dataclasses.replace(beam, error=piece.error, finish="length")
    ids = beam.ids + piece.ids
    finish = None if piece.finish == "step" else piece.finish
    if finish is None and len(ids) >= settings.max_tokens:
        finish = "length"
    # A solution that ended right behind its last step is the one that was judged with that step.
    judgement = beam.judgement if piece.text == beam.text == beam.seen else None
    return Beam(beam.problem, ids, piece.text, beam.tokens + piece.tokens, finish, piece.text, judgement)


def judge(
    engine: Engine,
    found: Iterator[tuple[Growth, Beam] | None],
    take: Callable[[Growth, Beam], None],
    known: dict[tuple[int, str], Judgement] | None = None,
) -> Generator[None, None, None]:
    """Gives every candidate with its judgement to ``take``: one call of the verifier, which is given them as they
    come. Yields after each verdict.

    Equal texts of a problem are judged once; a beam that failed or is judged already is given on as it is, and at
    once: the next candidates may depend on it alone.

    Args:
      found: (growth, candidate), or None for "not there yet".
      known: judgements by number of the problem and text; new ones are put there.
    """
    asked: list[tuple[int, str]] = []
    waiting: dict[tuple[int, str], list[tuple[Growth, Beam]]] = {}
    known = {} if known is None else known

    def solutions() -> Iterator[tuple[Problem, str] | None]:
        for item in found:
            if item is None:
                yield None
                continue
            growth, beam = item
            key = beam.problem.number, beam.seen
            if beam.error is not None or (beam.judgement is not None and beam.seen == beam.text):
                take(growth, beam)
            elif key in known:
                take(growth, dataclasses.replace(beam, judgement=known[key]))
            elif key in waiting:
                waiting[key].append(item)
            else:
                waiting[key] = [item]
                asked.append(key)
                yield beam.problem, beam.seen

    for number, judgement in engine.verify(solutions()):
        key = asked[number]
        known[key] = judgement
        members = waiting.pop(key)
        count(members[0][0].result, judgement)
        for growth, beam in members:
            take(growth, dataclasses.replace(beam, judgement=judgement))
        yield


def count(result: SearchResult, judgement: Judgement) -> None:
    result.verifier_tokens += judgement.tokens
    result.verifications += 1


def best_first(beams: Sequence[Beam], strategy: Strategy) -> list[Beam]:
    """By falling score; equals keep their order."""
    return sorted(beams, key=lambda beam: -beam.score(strategy))


def distinct(beams: Sequence[Beam]) -> list[Beam]:
    """Of beams with one text, the first."""
    return list({beam.text: beam for beam in reversed(beams)}.values())[::-1]
