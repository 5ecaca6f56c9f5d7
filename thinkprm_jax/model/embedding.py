"""Token ids to the vectors that a decoder begins with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.quantization import Quantization, quantize


class Embedding(nnx.Module):
    """``embedding_scale``: float32 [V], where the table is int8 (:mod:`.quantization`)."""

    def __init__(
        self,
        config: ModelConfig,
        rngs: nnx.Rngs,
        param_dtype: DTypeLike,
        quantization: Quantization | None = None,
    ) -> None:
        init = nnx.initializers.normal(config.initializer_range)
        table, scale = init(rngs.params(), (config.vocab_size, config.hidden_size), param_dtype), None
        if quantization is not None:
            table, scale = quantize(table, inputs=1)
        self.embedding = nnx.Param(table)
        self.embedding_scale = None if scale is None else nnx.Param(scale)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """int [...] -> float32 [..., D]."""
        rows = gather_rows(self.embedding[...], tokens).astype(jnp.float32)
        return rows if self.embedding_scale is None else rows * self.embedding_scale[...][tokens][..., None]


def gather_rows(table: jax.Array, index: jax.Array) -> jax.Array:
    """table[index].

    XLA's CPU backend gathers bfloat16 by converting the whole table to float32; there, bit patterns are gathered.
    The barrier ties the change of view to the index: alone, it would be moved out of a decode loop and then be a
    copy of the table instead of a part of the gather.
    """
    if jax.default_backend() != "cpu" or table.dtype != jnp.bfloat16:
        return table[index]
    table, index = jax.lax.optimization_barrier((table, index))
    return jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(table, jnp.uint16)[index], jnp.bfloat16)
