"""The figures that a task is known by, and what one verifier gains over another on the same solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thinkprm_jax.evaluation.estimates import Estimate, bootstrap_average, widened
from thinkprm_jax.evaluation.outcomes import Outcome
from thinkprm_jax.evaluation.summary import (
    Shares,
    Table,
    first_error_f1,
    first_error_shares,
    score_auroc,
    whole_solution_f1,
    whole_solution_shares,
)

SUBSET = "subset"  # the breakdown whose groups a measure may average over


@dataclass(frozen=True)
class Measure:
    """name: in full, for people. key: in JSON. of: of a set of outcomes. shares: the two that it is the harmonic
    mean of, if it is one. axis: its name at an axis. subsets: the figure is the mean of those of these subsets;
    None: of all outcomes together.
    """

    key: str
    name: str
    of: Callable[[Table], float]
    shares: Shares | None = None
    axis: str = "F1"
    subsets: tuple[str, ...] | None = None


FIRST_ERROR = Measure("first_error_f1", "first-error F1", first_error_f1, first_error_shares, "first-error F1")
WHOLE_SOLUTION = Measure(
    "binary_f1", "binary F1 (positive = correct)", whole_solution_f1, whole_solution_shares, "binary F1"
)
AUROC = Measure("auroc", "AUROC of the score", score_auroc, axis="AUROC")


def estimate(measure: Measure, outcomes: Sequence[Outcome], resamples: int = 1000) -> Estimate:
    """The figure; n counts all solutions behind it."""
    tables = _tables(measure, outcomes)
    found = bootstrap_average([_part(measure.of, table) for table in tables], resamples)
    return found if measure.shares is None else widened(found, [measure.shares(table) for table in tables])


def difference(
    measure: Measure, ours: Sequence[Outcome], theirs: Sequence[Outcome], resamples: int = 1000
) -> Estimate:
    """How much the figure of ``ours`` is above that of ``theirs``, two sets of outcomes for the same cases in the
    same order: both are resampled together (paired), so what is hard for both does not widen the interval."""
    if [outcome.first_error for outcome in ours] != [outcome.first_error for outcome in theirs]:
        raise ValueError("the outcomes are of different cases")
    pairs = zip(_tables(measure, ours), _tables(measure, theirs), strict=True)
    return bootstrap_average([_paired(measure.of, a, b) for a, b in pairs], resamples)


def _tables(measure: Measure, outcomes: Sequence[Outcome]) -> list[Table]:
    if measure.subsets is None:
        return [Table.of(outcomes)]
    return [
        Table.of([outcome for outcome in outcomes if outcome.groups.get(SUBSET) == subset])
        for subset in measure.subsets
    ]


def _part(of: Callable[[Table], float], table: Table) -> tuple[Callable[[np.ndarray], float], int]:
    return lambda rows: of(table.take(rows)), len(table.hits)


def _paired(of: Callable[[Table], float], ours: Table, theirs: Table) -> tuple[Callable[[np.ndarray], float], int]:
    return lambda rows: of(ours.take(rows)) - of(theirs.take(rows)), len(ours.hits)
