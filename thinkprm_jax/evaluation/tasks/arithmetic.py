"""The synthetic arithmetic task as cases: solutions that were never trained on, with their families and errors."""

from __future__ import annotations

from thinkprm_jax.arithmetic.task import make_example
from thinkprm_jax.evaluation.results import EvaluationCase


def arithmetic_case(seed: int, index: int, split: str) -> EvaluationCase:
    """Case `index` of the test set that `seed` draws.

    split: "test" (problem texts kept out of training) or "unseen" (wordings kept out of training).
    """
    example = make_example(seed, index, split)
    steps = tuple(example.chain.steps)
    groups = {
        "steps": str(len(steps)),
        "family": example.problem.family,
        "error": example.error_kind or "none",
    }
    return EvaluationCase(example.chain.problem, steps, example.first_error, groups)
