"""One round of a search: candidates from beams, a look ahead, and judgements. For all problems at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from thinkprm_jax.search.engine import (
    Beam,
    Continuation,
    Engine,
    Judgement,
    Piece,
    SearchResult,
    SearchSettings,
    beam_seed,
)


@dataclasses.dataclass(frozen=True)
class Growth:
    """A candidate to be made: it goes on from ``beam``; ``number`` tells the candidates of a problem apart."""

    beam: Beam
    number: int
    result: SearchResult  # whose tokens are counted


def grow(
    engine: Engine, settings: SearchSettings, growths: Sequence[Growth], round: int, to_the_end: bool
) -> list[Beam]:
    """The candidates, in order: one call of the generator.

    A beam whose tokens are used up ends as "length" with the step that used them up.
    """
    pieces: list[Piece | None] = [None] * len(growths)
    continuations = [
        Continuation(
            growth.beam.problem,
            growth.beam.ids,
            beam_seed(settings.seed, growth.beam.problem.number, round, growth.number),
            settings.max_tokens - len(growth.beam.ids),
            one_step=not to_the_end,
        )
        for growth in growths
    ]
    for index, piece in engine.generate(continuations):
        pieces[index] = piece
    return [_grown(growth, piece, settings) for growth, piece in zip(growths, pieces, strict=True)]  # type: ignore[arg-type]


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


def look_ahead(
    engine: Engine, settings: SearchSettings, growths: Sequence[Growth], beams: Sequence[Beam], round: int
) -> list[Beam]:
    """The same beams, with ``settings.lookahead`` greedy steps more in ``seen``: a call of the generator for each.

    Only what the verifier sees grows; the beams themselves do not.
    """
    beams = list(beams)
    ids = [beam.ids for beam in beams]
    open_ends = [place for place, beam in enumerate(beams) if beam.finish is None]
    for ahead in range(1, settings.lookahead + 1):
        if not open_ends:
            break
        continuations = [
            Continuation(
                beams[place].problem,
                ids[place],
                beam_seed(settings.seed, beams[place].problem.number, round, growths[place].number, ahead),
                settings.max_tokens - len(ids[place]),
                one_step=True,
                greedy=True,
            )
            for place in open_ends
        ]
        still_open = []
        for index, piece in engine.generate(continuations):
            place = open_ends[index]
            growths[place].result.generated_tokens += piece.tokens
            if piece.error is not None:
                continue
            ids[place] = ids[place] + piece.ids
            beams[place] = dataclasses.replace(beams[place], seen=piece.text)
            if piece.finish == "step" and len(ids[place]) < settings.max_tokens:
                still_open.append(place)
        open_ends = sorted(still_open)
    return beams


def judge(engine: Engine, growths: Sequence[Growth], beams: Sequence[Beam]) -> list[Beam]:
    """The beams with their judgements: one call of the verifier. Equal texts of a problem are judged once."""
    places: dict[tuple[int, str], list[int]] = {}
    for place, beam in enumerate(beams):
        if beam.error is None and (beam.judgement is None or beam.seen != beam.text):
            places.setdefault((beam.problem.number, beam.seen), []).append(place)
    groups = list(places.values())
    judged = list(beams)
    items = [(beams[group[0]].problem, beams[group[0]].seen) for group in groups]
    for index, judgement in engine.verify(items) if items else ():
        count(growths[groups[index][0]].result, judgement)
        for place in groups[index]:
            judged[place] = dataclasses.replace(beams[place], judgement=judgement)
    return judged


def count(result: SearchResult, judgement: Judgement) -> None:
    result.verifier_tokens += judgement.tokens
    result.verifications += 1


def best_first(beams: Sequence[Beam], strategy: str) -> list[Beam]:
    """By falling score; equals keep their order."""
    return sorted(beams, key=lambda beam: -beam.score(strategy))


def distinct(beams: Sequence[Beam]) -> list[Beam]:
    """Of beams with one text, the first."""
    return list({beam.text: beam for beam in reversed(beams)}.values())[::-1]
