"""A solution and the truth about it; what a verifier made of it is an outcome, which stands in files, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from thinkprm_jax.records.evaluation import Outcome

__all__ = ["Case", "Outcome"]


@dataclass(frozen=True)
class Case:
    """A solution and the truth about it.

    first_error: index from 0 of the first incorrect step, or -1.
    groups: how to break the figures down: name of a breakdown -> the group in it.
    id: how its data set calls it.
    """

    problem: str
    steps: tuple[str, ...]
    first_error: int
    groups: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None

    @property
    def labels(self) -> list[int]:
        """1 up to the first error, 0 from there on."""
        return [int(self.first_error < 0 or step < self.first_error) for step in range(len(self.steps))]
