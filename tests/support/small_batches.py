"""Batches of given examples."""

from __future__ import annotations

from collections.abc import Sequence

from thinkprm_jax.data.batches import Batch, TokenisedExample, lay_out


def make_batch(examples: Sequence[TokenisedExample], rows: int, length: int) -> Batch:
    """One example a row."""
    return lay_out([[example] for example in examples], rows, length, packed=False)


def make_packed_batch(members: Sequence[Sequence[TokenisedExample]], rows: int, length: int) -> Batch:
    """Rows of several examples."""
    return lay_out(members, rows, length, packed=True)
