"""Candidates of a search: what is wanted, what a piece of the generator makes of it, and their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from thinkprm_jax.search.engine import (
    Beam,
    Continuation,
    Judgement,
    Piece,
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
      written: the beam is the candidate itself, from elsewhere.
    """

    search: int
    beam: Beam
    number: int
    round: int
    to_the_end: bool
    result: SearchResult
    written: bool = False


@dataclasses.dataclass(frozen=True)
class Want:
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


def written(want: Want, piece: Piece, settings: SearchSettings) -> tuple[Beam, tuple[int, ...], bool]:
    """The candidate, the ids that were looked at for it, and whether they can go on.

    A beam whose tokens are used up ends as "length" with the step that used them up. With ``settings.lookahead``
    an open candidate is given so many greedy steps more in ``seen``: only what the verifier sees grows.
    """
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


def count(result: SearchResult, judgement: Judgement) -> None:
    result.verifier_tokens += judgement.tokens
    result.verifications += 1


def best_first(beams: Sequence[Beam], strategy: Strategy) -> list[Beam]:
    """By falling score; equals keep their order."""
    return sorted(beams, key=lambda beam: -beam.score(strategy))


def distinct(beams: Sequence[Beam]) -> list[Beam]:
    """Of beams with one text, the first."""
    return list({beam.text: beam for beam in reversed(beams)}.values())[::-1]
