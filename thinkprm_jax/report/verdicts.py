"""Verdicts, and the fields around them, from files as what a page shows of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from thinkprm_jax.protocol.prompts import THINK_CLOSE
from thinkprm_jax.protocol.reading import find_verdicts, read_chain
from thinkprm_jax.records.schema import field_error
from thinkprm_jax.records.verdicts import ChainRecord, VerdictRecord
from thinkprm_jax.report.run import ReportChain, VerdictMark

UNFINISHED = "the last line of {name} is half-written and left out: the run that writes it has not finished"


def verdict_fields(verdict: VerdictRecord, steps: int) -> dict[str, Any]:
    """The fields of a Solution of so many steps that a verdict fills."""
    chains = tuple(shown_chain(chain, steps) for chain in verdict.chains)
    score = verdict.prefix_score
    if score is None:
        return {"error": verdict.error, "chains": chains}
    labels = verdict.step_labels or ()
    # A judge that has no labels repeats the score of the whole here.
    scores: tuple[float | None, ...] = (verdict.step_scores or ()) if labels else ()
    if chains and labels:  # behind the first error of every chain there is nothing but zeros of convention
        measured = [
            any(chain.scores[step] is not None for chain in chains if chain.scores) for step in range(steps)
        ]
        scores = tuple(score if known else None for score, known in zip(scores, measured, strict=False))
    readable = not chains or any(chain.readable for chain in chains)
    return {
        "score": score,
        "verdict_score": score,
        "labels": labels,
        "scores": scores,
        "predicted": _first_error(labels, score) if readable else None,
        "chains": chains,
    }


def shown_chain(chain: ChainRecord, steps: int) -> ReportChain:
    """A chain with its verdicts marked."""
    labels = chain.step_labels
    found = labels.index(0) if 0 in labels else None
    scores = chain.step_scores if labels else ()
    thinking, ending = split_output(chain.output)
    read = read_chain(thinking, steps)
    return ReportChain(
        parts=mark_verdicts(thinking, read.positions),
        ending=ending,
        score=chain.prefix_score,
        labels=labels,
        scores=tuple(None if found is not None and step > found else score for step, score in enumerate(scores)),
        forced=chain.step_forced or (False,) * steps,
        first_error=_first_error(labels, chain.prefix_score),
        readable=read.complete if labels else chain.prefix_score is not None,
        finish=chain.finish_reason,
        tokens=chain.output_tokens,
    )


def split_output(output: str) -> tuple[str, str]:
    """(thinking, what follows it, from the tag that closes it on)."""
    thinking, tag, rest = output.rpartition(THINK_CLOSE)
    return (thinking, tag + rest) if tag else (output, "")


def mark_verdicts(text: str, positions: Sequence[int | None]) -> tuple[str | VerdictMark, ...]:
    """The text cut at its verdicts. positions: for each step where the word stands that decides it."""
    deciding = {position: step for step, position in enumerate(positions) if position is not None}
    parts: list[str | VerdictMark] = []
    end = 0
    for start, stop, label in find_verdicts(text):
        step = next((deciding[at] for at in deciding if start <= at < stop), None)
        parts += [text[end:start], VerdictMark(text[start:stop], label, step)]
        end = stop
    return tuple(part for part in [*parts, text[end:]] if part)


def _first_error(labels: Sequence[int], score: float | None) -> int | None:
    """By the labels; a verdict on the whole alone cannot say where an error is."""
    if labels:
        return labels.index(0) if 0 in labels else -1
    return -1 if score is not None and score >= 0.5 else None


def shown_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(name): value if isinstance(value, str) else json.dumps(value, default=str)
        for name, value in settings.items()
    }


def read_groups(row: Mapping[str, Any], place: str) -> dict[str, str]:
    """The field `groups`, where the data have one: name of a breakdown -> group."""
    groups = row.get("groups", {})
    if not isinstance(groups, Mapping):
        raise field_error(place, "groups", "must be an object")
    for name, group in groups.items():
        if not isinstance(group, str):
            raise field_error(place, f"groups.{name}", "must be a text")
    return dict(groups)


def problem_name(row: Mapping[str, Any], number: int) -> str:
    """As the data call it, or its number."""
    for key in ("id", "unique_id"):
        if isinstance(row.get(key), str | int):
            return str(row[key])
    return str(number)
