"""What a search writes on a problem: a row of completions.jsonl, and one of verdicts.jsonl."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from thinkprm_jax.grading.compare import canonical_many, equal_many, extract_answer
from thinkprm_jax.search.engine import Beam, SearchResult
from thinkprm_jax.search.problems import NOT_COUNTED, Task
from thinkprm_jax.search.recipe import SearchRecipe
from thinkprm_jax.search.voting import aggregate, prediction_columns, select

# The files of a run's folder.
COMPLETIONS, VERDICTS, RECIPE, ACCURACY = "completions.jsonl", "verdicts.jsonl", "recipe.yaml", "accuracy.json"


def completion_row(task: Task, result: SearchResult, recipe: SearchRecipe) -> dict[str, Any]:
    """Fields behind those of ``task.row``.

    completions, completion_tokens (not there for solutions from elsewhere whose tokens nobody counted),
    finish_reasons (null likewise), scores ([] without a verdict), agg_scores (null likewise),
    answers (canonical, null where there is none), correct, pred (the solution with the highest score), tokens, and
    search-and-learn's pred_naive@n, pred_weighted@n and pred_maj@n.
    """
    beams = result.solutions
    scores = [list(beam.judgement.scores) if beam.judgement is not None else [] for beam in beams]
    # Without a verifier a search has no scores; one number for all makes "weighted" the majority.
    totals = [aggregate(steps, recipe.agg_strategy) if steps else None for steps in scores]
    tokens = [beam.tokens for beam in beams]
    row: dict[str, Any] = {
        "completions": [beam.text for beam in beams],
        **({} if NOT_COUNTED in tokens else {"completion_tokens": tokens}),
        "finish_reasons": [beam.finish for beam in beams],
        "scores": scores,
        "agg_scores": totals,
        **_answers(task, [beam.text for beam in beams], totals, recipe),
        "tokens": {
            "generated": result.generated_tokens,
            "verifier": result.verifier_tokens,
            "verifications": result.verifications,
            "rounds": result.rounds,
        },
    }
    if result.error is not None:
        row["error"] = result.error
    return row


def _answers(
    task: Task, texts: Sequence[str], scores: Sequence[float | None], recipe: SearchRecipe
) -> dict[str, Any]:
    if not texts:
        return {"answers": [], "correct": [], "pred": None}
    if recipe.answer_kind == "none":
        extracted: list[str | None] = [None] * len(texts)
        keys = extracted
        correct = list(task.correct or ())
    else:
        extracted = [extract_answer(text, recipe.answer_kind) for text in texts]
        keys = canonical_many(extracted, recipe.answer_kind)
        correct = equal_many([(task.answer, answer) for answer in extracted], recipe.answer_kind)
    votes = [1.0] * len(texts) if not recipe.verified else list(scores)
    row = {"answers": keys, "correct": correct, "pred": texts[_highest(votes)]}
    if recipe.answer_kind == "none":  # programs are no answers that could be voted on
        return row
    return row | prediction_columns(select(extracted, keys, votes, correct))


def _highest(scores: Sequence[float | None]) -> int:
    """The first of the highest; a missing score is below all others."""
    return max(range(len(scores)), key=lambda place: float("-inf") if scores[place] is None else scores[place])  # type: ignore[arg-type,return-value]


def verdict_row(result: SearchResult) -> dict[str, Any]:
    """verdicts: one for each completion, in order; empty where nothing was judged."""
    judged = [beam for beam in result.solutions if beam.judgement is not None]
    return {"verdicts": [verdict_fields(beam) for beam in judged]}


def verdict_fields(beam: Beam) -> dict[str, Any]:
    """A verdict as in the output of `thinkprm score`."""
    judgement = beam.judgement
    assert judgement is not None
    verdict = judgement.verdict
    chains = [dataclasses.asdict(chain) for chain in getattr(verdict, "chains", ())]
    with_chains = {"chains": chains} if chains else {}
    if judgement.error is not None:
        return {"error": judgement.error, "steps": list(judgement.steps), **with_chains}
    return {
        "prefix_score": verdict.prefix_score,
        "step_scores": list(verdict.step_scores),
        "step_labels": list(verdict.step_labels),
        "steps": list(judgement.steps),
        **with_chains,
    }


def total_tokens(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Over rows of completions."""
    return {name: sum(row["tokens"][name] for row in rows) for name in ("generated", "verifier", "verifications")}


def failures(rows: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line on every problem that has no solution because of an error, or solutions that got no verdict."""
    lines = []
    for row, judged in zip(rows, verdicts, strict=True):
        errors = [verdict["error"] for verdict in judged["verdicts"] if "error" in verdict]
        if "error" in row:
            lines.append(f"problem {row['index']}: no solution: {row['error']}")
        elif errors:
            count = len(judged["verdicts"])
            lines.append(f"problem {row['index']}: {len(errors)} of {count} solutions not judged: {errors[0]}")
    return lines
