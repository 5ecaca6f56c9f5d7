"""How chains came to say what they say: by themselves, or cut, or asked for it. Scores cannot tell: a model that
has never verified anything gives numbers, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from thinkprm_jax.protocol.reading import contradicts
from thinkprm_jax.records.verdicts import ChainRecord, VerdictRecord


@dataclass(frozen=True)
class ChainCounts:
    """Over the chains of one verdict or many; verifiers without chains have none.

    Example:

        counts = ChainCounts.of(row.verdict for row in records.read_verdicts("verdicts.jsonl"))
        print(*counts.lines, sep="\\n")

    Attributes:
      chains: all of them.
      steps: verdicts on steps, each chain's through the first error it finds. forced: those that were asked for,
        since the chain never judged the step.
      cut: chains that had not ended when their tokens, or the context, were used up.
      contradictory: chains whose score of the whole and whose labels of the steps do not go together.
      unreadable: outputs of a judge that hold no verdict.
      unsound: chains that were cut or unreadable, or were asked for at least half of their verdicts.
    """

    chains: int = 0
    steps: int = 0
    forced: int = 0
    cut: int = 0
    contradictory: int = 0
    unreadable: int = 0
    unsound: int = 0

    @classmethod
    def of(cls, verdicts: Iterable[VerdictRecord]) -> Self:
        total = cls()
        for verdict in verdicts:
            for chain in verdict.chains:
                total += cls._of_chain(chain)
        return total

    @classmethod
    def _of_chain(cls, chain: ChainRecord) -> Self:
        labels, asked = chain.step_labels, chain.step_forced
        judged = labels.index(0) + 1 if 0 in labels else len(labels)
        steps = judged if asked else 0
        forced = sum(asked[:judged])
        is_cut = chain.finish_reason in ("length", "context")
        is_unreadable = chain.forced is not None and chain.label is None
        return cls(
            chains=1,
            steps=steps,
            forced=forced,
            cut=int(is_cut),
            contradictory=int(bool(contradicts(chain.prefix_score, chain.step_labels))),
            unreadable=int(is_unreadable),
            unsound=int(is_cut or is_unreadable or (forced > 0 and 2 * forced >= steps)),
        )

    def __add__(self, other: Self) -> Self:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return type(self)(*(one + another for one, another in zip(mine, theirs, strict=True)))

    @property
    def remarks(self) -> list[str]:
        """What is to be said of them, such as "1 of 2 step verdicts asked for"; [] nothing."""
        said = [f"{self.forced:,} of {self.steps:,} step verdicts asked for"] if self.forced else []
        parts = {"cut": self.cut, "contradictory": self.contradictory, "unreadable": self.unreadable}
        return [*said, *(_share(count, self.chains, what) for what, count in parts.items() if count)]

    @property
    def is_no_verifier(self) -> bool:
        """Most chains say nothing by themselves."""
        return 2 * self.unsound > self.chains

    @property
    def lines(self) -> list[str]:
        """For the summary of a run."""
        said = [f"of {self.chains:,} chains: {', '.join(self.remarks)}"] if self.remarks else []
        if self.is_no_verifier:
            said.append(
                f"{self.unsound:,} of {self.chains:,} chains were cut, unreadable or asked for their verdicts: "
                "this model is probably no verifier, and its scores mean little (or its chains need more room: "
                "max_length, max_gen_tokens)"
            )
        return said


def _share(count: int, chains: int, what: str) -> str:
    return what if chains == 1 else f"{count:,} {what}"
