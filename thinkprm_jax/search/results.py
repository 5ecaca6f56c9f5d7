"""What a search writes on a problem: a row of completions.jsonl, and one of verdicts.jsonl."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from thinkprm_jax.grading.compare import equal_many, extract_answer, vote_keys
from thinkprm_jax.records.search import CompletionRow, SearchTokens, SearchVerdictRow
from thinkprm_jax.search.engine import SearchResult
from thinkprm_jax.search.problems import NOT_COUNTED, Task
from thinkprm_jax.search.recipe import SearchRecipe
from thinkprm_jax.search.voting import Strategy, aggregate, prediction_columns, select


def completion_row(task: Task, result: SearchResult, recipe: SearchRecipe) -> CompletionRow:
    """The line of completions.jsonl on a problem; its first fields are those of ``task.row``."""
    beams = result.solutions
    texts = tuple(beam.text for beam in beams)
    scores = tuple(beam.judgement.scores if beam.judgement is not None else () for beam in beams)
    # Without a verifier a search has no scores; one number for all makes "weighted" the majority.
    totals = _totals(scores, recipe.vote_strategy or recipe.agg_strategy)
    ranks = _totals(scores, recipe.agg_strategy)
    tokens = tuple(beam.tokens for beam in beams)
    answers = _answers(task, texts, recipe)
    pred, predictions = _predictions(texts, answers, totals, ranks, recipe)
    return CompletionRow(
        given=task.row,
        completions=texts,
        completion_tokens=None if NOT_COUNTED in tokens else tokens,
        finish_reasons=tuple(beam.finish for beam in beams),
        scores=scores,
        agg_scores=totals,
        answers=answers.keys,
        correct=answers.correct,
        pred=pred,
        predictions=predictions,
        tokens=SearchTokens(result.generated_tokens, result.verifier_tokens, result.verifications, result.rounds),
        error=result.error,
    )


def _totals(scores: Sequence[tuple[float, ...]], strategy: Strategy) -> tuple[float | None, ...]:
    """One score a completion; None where it has none."""
    return tuple(aggregate(list(steps), strategy) if steps else None for steps in scores)


@dataclasses.dataclass(frozen=True)
class _Answers:
    """Of all completions: as they were found, equal ones in one spelling, and which are right."""

    extracted: tuple[str | None, ...] = ()
    keys: tuple[str | None, ...] = ()
    correct: tuple[bool, ...] = ()


def _answers(task: Task, texts: Sequence[str], recipe: SearchRecipe) -> _Answers:
    if not texts:
        return _Answers()
    if recipe.answer_kind == "none":
        nothing = (None,) * len(texts)
        return _Answers(nothing, nothing, tuple(task.correct or ()))
    extracted = [extract_answer(text, recipe.answer_kind) for text in texts]
    keys = vote_keys(extracted, recipe.answer_kind)
    correct = equal_many([(task.answer, answer) for answer in extracted], recipe.answer_kind)
    return _Answers(tuple(extracted), tuple(keys), tuple(correct))


def _predictions(
    texts: Sequence[str],
    answers: _Answers,
    scores: Sequence[float | None],
    ranks: Sequence[float | None],
    recipe: SearchRecipe,
) -> tuple[str | None, dict[str, str]]:
    """(the completion with the highest score, search-and-learn's columns of chosen answers).

    scores: that answers are chosen by. ranks: that the search itself ranked by.
    """
    if not texts:
        return None, {}
    votes = [1.0] * len(texts) if not recipe.verified else list(scores)
    pred = texts[_highest(ranks if recipe.verified else votes)]
    if recipe.answer_kind == "none":  # programs are no answers that could be voted on
        return pred, {}
    return pred, prediction_columns(select(answers.extracted, answers.keys, votes, answers.correct))


def _highest(scores: Sequence[float | None]) -> int:
    """The first of the highest; a missing score is below all others."""
    return max(range(len(scores)), key=lambda place: float("-inf") if scores[place] is None else scores[place])  # type: ignore[arg-type,return-value]


def verdict_row(index: int, result: SearchResult) -> SearchVerdictRow:
    """The line of verdicts.jsonl on a problem."""
    judged = [beam.judgement.record for beam in result.solutions if beam.judgement is not None]
    return SearchVerdictRow(index, tuple(record for record in judged if record is not None))


def total_tokens(rows: Sequence[CompletionRow]) -> dict[str, int]:
    """Over rows of completions."""
    spent = [row.tokens for row in rows if row.tokens is not None]
    return {
        "generated": sum(tokens.generated for tokens in spent),
        "verifier": sum(tokens.verifier for tokens in spent),
        "verifications": sum(tokens.verifications for tokens in spent),
    }


def failures(rows: Sequence[CompletionRow], verdicts: Sequence[SearchVerdictRow]) -> list[str]:
    """One line on every problem that has no solution because of an error, or solutions that got no verdict."""
    lines = []
    for row, judged in zip(rows, verdicts, strict=True):
        errors = [verdict.error for verdict in judged.verdicts if verdict.error is not None]
        if row.error is not None:
            lines.append(f"problem {judged.index}: no solution: {row.error}")
        elif errors:
            count = len(judged.verdicts)
            lines.append(f"problem {judged.index}: {len(errors)} of {count} solutions not judged: {errors[0]}")
    return lines
