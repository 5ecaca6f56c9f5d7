"""A verdict as it stands in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thinkprm_jax.records.verdicts import ChainRecord, VerdictRecord

if TYPE_CHECKING:
    from thinkprm_jax.verifier.registry import AnyVerdict


def verdict_record(verdict: AnyVerdict, steps: Sequence[str] | None = None) -> VerdictRecord:
    """What every program writes of a verdict, whatever verifier it is of.

    Args:
      steps: as the verifier was shown them, where the row has the solution as one text.
    """
    chains = tuple(
        ChainRecord(**{**dataclasses.asdict(chain), "step_scores": tuple(chain.step_scores)})
        for chain in getattr(verdict, "chains", ())
    )
    shown = None if steps is None else tuple(steps)
    if verdict.error is not None:
        return VerdictRecord(error=str(verdict.error), steps=shown, chains=chains)
    return VerdictRecord(
        prefix_score=verdict.prefix_score,
        step_scores=tuple(verdict.step_scores),
        step_labels=tuple(verdict.step_labels),
        steps=shown,
        chains=chains,
    )
