"""What a sampler can be at all."""

from __future__ import annotations

from jax.sharding import Mesh

from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.sampler.memory import rows

# More contexts than a device holds. The host has a place for each: a slip of the hand would take all its memory.
MOST_SLOTS = 2**16


def check_sampler(
    slots: int,
    max_length: int,
    chunk: int,
    prefix_cache: int,
    share_from: int,
    config: ModelConfig,
    mesh: Mesh | None,
) -> None:
    """UserError where a setting of a sampler cannot work."""
    if slots < 1 or chunk < 1 or max_length < 2:
        raise UserError(
            f"sampler: slots={slots} and chunk={chunk} must be at least 1, max_length={max_length} at least 2"
        )
    if slots > MOST_SLOTS:
        raise UserError(f"sampler: slots is {slots}, it may be {MOST_SLOTS:,} at most")
    if prefix_cache < 0 or share_from < 1:
        raise UserError(
            f"sampler: prefix_cache={prefix_cache} must be 0 or more, share_from={share_from} at least 1"
        )
    if max_length > config.positions:
        raise UserError(f"sampler: max_length {max_length} is above the model's {config.positions} positions")
    if slots % rows(mesh):
        raise UserError(f"sampler: slots={slots} must be a multiple of the mesh's data x fsdp = {rows(mesh)}")
