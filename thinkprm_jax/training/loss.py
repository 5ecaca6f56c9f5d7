"""Token cross-entropy on target tokens, as sums, so that any split of a step's rows gives the same step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Sums(NamedTuple):
    """Sums over the target tokens of some rows; every field is a float32 scalar.

    loss: of weight * cross-entropy. weight: of the weights. tokens: target tokens. hits: those that are the
    argmax. rows: rows that have targets. exact: those whose every target is the argmax.
    """

    loss: jax.Array
    weight: jax.Array
    tokens: jax.Array
    hits: jax.Array
    rows: jax.Array
    exact: jax.Array


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-log p(target): float32 logits [..., V], int targets [...] -> [...].

    The target's logit is selected by comparison and reduction, not by a gather: it fuses with its neighbours,
    its gradient is no scatter, and it partitions over a sharded vocabulary.
    """
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    shifted = logits - top
    is_target = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1) == targets[..., None]
    picked = jnp.sum(jnp.where(is_target, shifted, 0.0), axis=-1)
    return jnp.log(jnp.sum(jnp.exp(shifted), axis=-1)) - picked


def token_sums(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> Sums:
    """The sums of a batch: logits float32 [B, T, V]; targets int [B, T]; weights float32 [B, T], 0 off target."""
    losses = cross_entropy(logits, targets)
    counted = weights > 0
    hit = jnp.argmax(logits, axis=-1) == targets
    rows = jnp.any(counted, axis=-1)
    return Sums(
        loss=jnp.sum(losses * weights),
        weight=jnp.sum(weights),
        tokens=jnp.sum(counted, dtype=jnp.float32),
        hits=jnp.sum(hit & counted, dtype=jnp.float32),
        rows=jnp.sum(rows, dtype=jnp.float32),
        exact=jnp.sum(rows & jnp.all(hit | ~counted, axis=-1), dtype=jnp.float32),
    )
