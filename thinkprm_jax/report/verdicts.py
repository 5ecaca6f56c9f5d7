"""Verdicts as the programs write them, checked field by field, as :class:`thinkprm_jax.report.run.Solution`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.prompts import THINK_CLOSE
from thinkprm_jax.protocol.reading import find_verdicts, read_chain
from thinkprm_jax.records.jsonl import get_field, type_name
from thinkprm_jax.report.run import Chain, Mark

Row = Mapping[str, Any]


def read_verdict(row: Any, steps: Sequence[str], place: str, name: str) -> dict[str, Any]:
    """The fields of a Solution that a verdict fills.

    Args:
      row: {"error"}, or {"prefix_score", "step_scores", "step_labels"} with "chains" from a generative verifier.
      name: of the verdict in messages: `verdicts[2]`.
    Raises:
      UserError: names file, line and field.
    """
    verdict = checked(row, dict, "an object", place, name)
    prefix = f"{name}."
    chains = tuple(
        read_chain_row(chain, len(steps), place, f"{prefix}chains[{index}]")
        for index, chain in enumerate(
            get_field(verdict, "chains", list, place, prefix) if "chains" in verdict else ()
        )
    )
    if verdict.get("error") is not None:
        return {"error": get_field(verdict, "error", str, place, prefix), "chains": chains}
    score = probability(get_field(verdict, "prefix_score", object, place, prefix), place, f"{prefix}prefix_score")
    labels = _labels(verdict, len(steps), place, prefix)
    scores = _scores(verdict, len(steps), place, prefix)
    if chains and labels:  # behind the first error of every chain there is nothing but zeros of convention
        measured = [
            any(chain.scores[step] is not None for chain in chains if chain.scores) for step in range(len(steps))
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


def read_chain_row(row: Any, steps: int, place: str, name: str) -> Chain:
    """A chain of ThinkPRM, or of a judge (which has `score` in place of `prefix_score`, null where unreadable)."""
    chain = checked(row, dict, "an object", place, name)
    prefix = f"{name}."
    output = get_field(chain, "output", str, place, prefix)
    key = "prefix_score" if "prefix_score" in chain or "score" not in chain else "score"
    score = get_field(chain, key, object, place, prefix)
    score = None if score is None else probability(score, place, f"{prefix}{key}")
    labels = _labels(chain, steps, place, prefix)
    found = labels.index(0) if 0 in labels else None
    scores = _scores(chain, steps, place, prefix) if "step_scores" in chain else ()
    thinking, ending = split_output(output)
    read = read_chain(thinking, steps)
    return Chain(
        parts=mark_verdicts(thinking, read.positions),
        ending=ending,
        score=score,
        labels=labels,
        scores=tuple(None if found is not None and step > found else score for step, score in enumerate(scores)),
        forced=_flags(chain, steps, place, prefix),
        first_error=_first_error(labels, score),
        readable=read.complete if labels else score is not None,
        finish=text_or_none(chain, "finish_reason", place, prefix),
        tokens=count(chain.get("output_tokens"), place, f"{prefix}output_tokens"),
    )


def split_output(output: str) -> tuple[str, str]:
    """(thinking, what follows it, from the tag that closes it on)."""
    thinking, tag, rest = output.rpartition(THINK_CLOSE)
    return (thinking, tag + rest) if tag else (output, "")


def mark_verdicts(text: str, positions: Sequence[int | None]) -> tuple[str | Mark, ...]:
    """The text cut at its verdicts. positions: for each step where the word stands that decides it."""
    deciding = {position: step for step, position in enumerate(positions) if position is not None}
    parts: list[str | Mark] = []
    end = 0
    for start, stop, label in find_verdicts(text):
        step = next((deciding[at] for at in deciding if start <= at < stop), None)
        parts += [text[end:start], Mark(text[start:stop], label, step)]
        end = stop
    return tuple(part for part in [*parts, text[end:]] if part)


def probability(value: Any, place: str, name: str) -> float:
    """The value as float; `UserError` where it is no number from 0 to 1 (NaN is none)."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        what = value if is_number else type_name(value)
        raise UserError(f"{place}: the field `{name}` must be a number in [0, 1], it is {what}")
    return float(value)


def checked(value: Any, kind: type, wanted: str, place: str, name: str) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{place}: the field `{name}` must be {wanted}, it is {type_name(value)}")
    return value


def count(value: Any, place: str, name: str) -> int | None:
    """A whole number, or None for null."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        what = value if isinstance(value, float) else type_name(value)
        raise UserError(f"{place}: the field `{name}` must be a whole number, it is {what}")
    return value


def text_or_none(row: Row, name: str, place: str, prefix: str = "") -> str | None:
    """A text, or None where the field is missing or null."""
    return None if row.get(name) is None else get_field(row, name, str, place, prefix)


def _first_error(labels: Sequence[int], score: float | None) -> int | None:
    """By the labels; a verdict on the whole alone cannot say where an error is."""
    if labels:
        return labels.index(0) if 0 in labels else -1
    return -1 if score is not None and score >= 0.5 else None


def _labels(row: Row, steps: int, place: str, prefix: str) -> tuple[int, ...]:
    labels = _per_step(row, "step_labels", steps, place, prefix)
    for index, label in enumerate(labels):
        if isinstance(label, float) or label not in (0, 1):
            raise UserError(f"{place}: the field `{prefix}step_labels[{index}]` must be 0 or 1")
    return tuple(int(label) for label in labels)


def _scores(row: Row, steps: int, place: str, prefix: str) -> tuple[float, ...]:
    """Of the steps; a judge that has no labels repeats the score of the whole here."""
    if not row.get("step_labels"):
        return ()
    scores = _per_step(row, "step_scores", steps, place, prefix)
    return tuple(probability(score, place, f"{prefix}step_scores[{index}]") for index, score in enumerate(scores))


def _flags(row: Row, steps: int, place: str, prefix: str) -> tuple[bool, ...]:
    if "step_forced" not in row:
        return (False,) * steps
    flags = _per_step(row, "step_forced", steps, place, prefix)
    return tuple(
        checked(flag, bool, "true or false", place, f"{prefix}step_forced[{index}]")
        for index, flag in enumerate(flags)
    )


def _per_step(row: Row, name: str, steps: int, place: str, prefix: str) -> list[Any]:
    values = get_field(row, name, list, place, prefix)
    if values and len(values) != steps:
        raise UserError(f"{place}: the field `{prefix}{name}` has {len(values)} entries for {steps} steps")
    return values
