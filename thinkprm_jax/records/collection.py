"""The rows of `thinkprm collect`: every chain as it came, what became of it, and the chains that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.records.schema import Count, Label, Record, Row


@dataclass(frozen=True)
class GenerationRow(Row):
    """A line of generations.jsonl: one chain on one prefix.

    Attributes:
      prefix: its number, from 0.
      chain: its number among those of the prefix, from 0.
      problem, steps: of the prefix.
      labels: of the steps, by people: 1 correct, 0 incorrect.
      source: where the prefix is from.
      text: of the chain, without what ended it.
      tokens: sampled.
      finish: "stop", "length", "context" or "error".
      error: why there is no chain.
      teacher: the settings of the model that wrote it.
    """

    FORMAT = "generation"
    MADE_BY = ("teacher",)

    prefix: Count
    chain: Count
    problem: str
    steps: tuple[str, ...]
    labels: tuple[Label, ...]
    source: str
    text: str
    tokens: Count
    finish: str
    error: str | None
    teacher: Mapping[str, Any]


@dataclass(frozen=True)
class DecisionRow(Row):
    """A line of decisions.jsonl: whether a generation is kept.

    Attributes:
      source: where the prefix is from.
      prefix, chain: as in generations.jsonl.
      reason: "kept", or the filter that left it out.
    """

    FORMAT = "decision"

    source: str
    prefix: Count
    chain: Count
    reason: str


@dataclass(frozen=True)
class CollectedChainRow(Row):
    """A line of chains.jsonl, to train on: the columns of launch/thinkprm-1K-verification-cots and no others, so
    that it says nothing of a version.

    Attributes:
      problem: of the solution.
      prefix: its steps as one text.
      cot: the chain, from `<think>` to the decision.
      prefix_steps: the steps as a list.
      gt_step_labels: "+" or "-", up to the first "-".
      prefix_label: whether all steps are correct.
    """

    FORMAT = "chain"

    problem: str
    prefix: str
    cot: str
    prefix_steps: tuple[str, ...]
    gt_step_labels: tuple[str, ...]
    prefix_label: bool

    def to_dict(self) -> dict[str, Any]:
        return Record.to_dict(self)
