"""The synthetic arithmetic task as cases: solutions that were never trained on, with their families and errors."""

from __future__ import annotations

from thinkprm_jax.arithmetic.task import make_example
from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.results import EvaluationCase
from thinkprm_jax.evaluation.runner import EvaluationTask, rows_setting
from thinkprm_jax.evaluation.summary import FIRST_ERROR, WHOLE_SOLUTION
from thinkprm_jax.records.row_source import ALL_ROWS, Part
from thinkprm_jax.seeds import check_seed


def arithmetic_task(seed: int, split: str, problems: int, part: Part = ALL_ROWS) -> EvaluationTask:
    """The first so many cases of the test set that `seed` draws, or a part of them.

    Raises:
      UserError: the seed is none.
    """
    checked_seed(seed)
    rows = part.rows(problems, "arithmetic")
    return EvaluationTask(
        settings={
            "task": "arithmetic",
            "split": split,
            "problems": problems,
            "seed": seed,
            **rows_setting(rows, problems),
        },
        title=f"{len(rows):,} arithmetic problems (split {split}, seed {seed})",
        cases=[arithmetic_case(seed, index, split) for index in rows],
        figures=(FIRST_ERROR, WHOLE_SOLUTION),
    )


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


def checked_seed(seed: int) -> None:
    """UserError where it is no seed."""
    try:
        check_seed(seed)
    except ValueError as error:
        raise UserError(str(error)) from None
