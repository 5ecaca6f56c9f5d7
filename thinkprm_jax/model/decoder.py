"""The decoder of the Qwen2 and Llama families in Flax NNX.

The residual stream, norms, softmax and logits are float32; matrix products take their inputs in ``dtype`` and
accumulate in float32. Layers are separate list entries, not one stacked array: a decode step then reads every
weight in place (a slice of a stacked array is a copy on CPUs), and the sampler unrolls them anyway.

Three entry points share the parameters: :meth:`Decoder.__call__` (logits of whole sequences, training and
parity), :meth:`Decoder.prefill` (keys and values of prompts) and :meth:`Decoder.step` (one token per row).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from thinkprm_jax.mesh import axis_counts, named_sharding
from thinkprm_jax.model.attention import attend_cache, attend_sequence
from thinkprm_jax.model.cache import POSITIONS, KVCache
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.products import contract
from thinkprm_jax.model.rope import rope, rotate


class Linear(nnx.Module):
    """y = x W + b with W [in, out]; the product's inputs in ``dtype``, the result float32."""

    def __init__(
        self, inputs: int, outputs: int, bias: bool, config: ModelConfig, rngs: nnx.Rngs,
        param_dtype: DTypeLike, dtype: DTypeLike,
    ) -> None:  # fmt: skip
        init = nnx.initializers.normal(config.initializer_range)
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs), param_dtype))
        self.bias = nnx.Param(jnp.zeros((outputs,), param_dtype)) if bias else None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] -> float32 [..., out]."""
        leading = "bt"[: x.ndim - 1]
        y = contract(f"{leading}i,io->{leading}o", x, self.kernel[...], self.dtype)
        return y if self.bias is None else y + self.bias[...].astype(jnp.float32)


class RMSNorm(nnx.Module):
    """x / rms(x) * scale, in float32."""

    def __init__(self, size: int, eps: float, param_dtype: DTypeLike) -> None:
        self.scale = nnx.Param(jnp.ones((size,), param_dtype))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(variance + self.eps) * self.scale[...].astype(jnp.float32)


class Attention(nnx.Module):
    """Projections of grouped-query attention; the attention itself is in :mod:`.attention`."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, param_dtype: DTypeLike, dtype: DTypeLike) -> None:
        d, heads = config.hidden_size, config.num_heads * config.head_dim
        kv_heads = config.num_kv_heads * config.head_dim
        self.query = Linear(d, heads, config.qkv_bias, config, rngs, param_dtype, dtype)
        self.key = Linear(d, kv_heads, config.qkv_bias, config, rngs, param_dtype, dtype)
        self.value = Linear(d, kv_heads, config.qkv_bias, config, rngs, param_dtype, dtype)
        self.output = Linear(heads, d, config.output_bias, config, rngs, param_dtype, dtype)
        self.head_dim = config.head_dim

    def project(self, x: jax.Array, cos: jax.Array, sin: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[..., D] -> q [..., H, h] (rotated, scaled), k [..., K, h] (rotated), v [..., K, h]."""

        def heads(y: jax.Array) -> jax.Array:
            return y.reshape(*y.shape[:-1], -1, self.head_dim)

        q = rotate(heads(self.query(x)), cos, sin) * self.head_dim**-0.5
        return q, rotate(heads(self.key(x)), cos, sin), heads(self.value(x))

    def merge(self, heads: jax.Array) -> jax.Array:
        """[..., H, h] -> [..., D]."""
        return self.output(heads.reshape(*heads.shape[:-2], -1))


class MLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, param_dtype: DTypeLike, dtype: DTypeLike) -> None:
        d, f, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate = Linear(d, f, bias, config, rngs, param_dtype, dtype)
        self.up = Linear(d, f, bias, config, rngs, param_dtype, dtype)
        self.down = Linear(f, d, bias, config, rngs, param_dtype, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Layer(nnx.Module):
    """One pre-norm block."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, param_dtype: DTypeLike, dtype: DTypeLike) -> None:
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, param_dtype)
        self.attention = Attention(config, rngs, param_dtype, dtype)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, param_dtype)
        self.mlp = MLP(config, rngs, param_dtype, dtype)


class Embedding(nnx.Module):
    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, param_dtype: DTypeLike) -> None:
        init = nnx.initializers.normal(config.initializer_range)
        self.embedding = nnx.Param(init(rngs.params(), (config.vocab_size, config.hidden_size), param_dtype))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """int [...] -> float32 [..., D]."""
        return gather_rows(self.embedding[...], tokens).astype(jnp.float32)


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


class Decoder(nnx.Module):
    """A causal language model; parameters are named as :func:`parameter_axes` lists them."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
        param_dtype: DTypeLike = jnp.float32,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.embed = Embedding(config, rngs, param_dtype)
        self.layers = nnx.List([Layer(config, rngs, param_dtype, dtype) for _ in range(config.num_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, param_dtype)
        self.head = (
            None
            if config.tie_embeddings
            else Linear(config.hidden_size, config.vocab_size, False, config, rngs, param_dtype, dtype)
        )

    def __call__(
        self, tokens: jax.Array, positions: jax.Array | None = None, segment_ids: jax.Array | None = None
    ) -> jax.Array:
        """Logits of whole sequences.

        Args:
          tokens: int [B, T]. Causal, so right padding needs no mask: it is never seen by what precedes it.
          positions: int [B, T], default 0..T-1 in every row; they restart in packed rows.
          segment_ids: int [B, T]; tokens attend only within equal ids (packed rows).
        Returns: float32 [B, T, V].
        """
        return self.unembed(self.hidden(tokens, positions, segment_ids))

    def hidden(
        self, tokens: jax.Array, positions: jax.Array | None = None, segment_ids: jax.Array | None = None
    ) -> jax.Array:
        """The same without the head: float32 [B, T, D] after the final norm."""
        return self.norm(self._sequence(tokens, positions, segment_ids)[0])

    def prefill(self, tokens: jax.Array) -> KVCache:
        """Keys and values of tokens int [B, T] from position 0, as a cache of length T in ``dtype``.

        No logits: the sampler feeds a prompt's last token through :meth:`step`.
        """
        _, keys, values = self._sequence(tokens, None, None)
        return KVCache(
            keys=[k.transpose(0, 2, 1, 3).astype(self.dtype) for k in keys],
            values=[v.transpose(0, 2, 1, 3).astype(self.dtype) for v in values],
        )

    def rotations(self, lengths: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
        """What :meth:`step` needs of the positions of a decode call: cos and sin, float32 [C, B, 1, h/2]."""
        return rope(self.config, lengths[None] + jnp.arange(steps)[:, None])

    def step(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        index: jax.Array,
        rotations: tuple[jax.Array, jax.Array],
        cache: KVCache,
    ) -> tuple[jax.Array, KVCache]:
        """Step ``index`` of a decode call: one token per row against the row's cache.

        Args:
          tokens: int [B], standing at positions lengths + index.
          lengths: int [B], tokens of every row in the cache when the call began.
          index: int [], 0 .. C - 1; the call has already written 0 .. index - 1.
          rotations: of :meth:`rotations` for the whole call.
          cache: B rows with room for C steps.
        Returns: the float32 state [B, D] after the final norm (logits: :meth:`unembed`), the updated cache.
        """
        cos, sin = (jax.lax.dynamic_index_in_dim(x, index, keepdims=False) for x in rotations)
        place = jnp.arange(cache.length + cache.steps)[None]
        readable = (place < lengths[:, None]) | ((place >= cache.length) & (place <= cache.length + index))
        x = self.embed(tokens)
        keys, values = [], []
        for layer, layer_keys, layer_values in zip(self.layers, cache.keys, cache.values, strict=True):
            q, k, v = layer.attention.project(layer.attention_norm(x), cos, sin)
            k, v = k.astype(layer_keys.dtype), v.astype(layer_values.dtype)
            layer_keys, layer_values = (
                jax.lax.dynamic_update_slice_in_dim(old, new[:, :, None], cache.length + index, axis=POSITIONS)
                for old, new in ((layer_keys, k), (layer_values, v))
            )
            x = x + layer.attention.merge(attend_cache(q, layer_keys, layer_values, readable))
            x = x + layer.mlp(layer.mlp_norm(x))
            keys.append(layer_keys)
            values.append(layer_values)
        return self.norm(x), KVCache(keys, values, cache.steps)

    def unembed(self, x: jax.Array) -> jax.Array:
        """[..., D] after the final norm -> float32 logits [..., V]."""
        if self.head is not None:
            return self.head(x)
        leading = "bt"[: x.ndim - 1]
        return contract(f"{leading}d,vd->{leading}v", x, self.embed.embedding[...], self.dtype)

    def _sequence(
        self, tokens: jax.Array, positions: jax.Array | None, segment_ids: jax.Array | None
    ) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        """Residual stream [B, T, D] before the final norm, and every layer's k, v [B, T, K, h]."""
        cos, sin = rope(self.config, np.arange(tokens.shape[1])[None] if positions is None else positions)
        x = self.embed(tokens)
        keys, values = [], []
        for layer in self.layers:
            q, k, v = layer.attention.project(layer.attention_norm(x), cos, sin)
            x = x + layer.attention.merge(attend_sequence(q, k, v, segment_ids, self.dtype))
            x = x + layer.mlp(layer.mlp_norm(x))
            keys.append(k)
            values.append(v)
        return x, keys, values


def parameter_axes(config: ModelConfig) -> dict[str, tuple[str | None, ...]]:
    """Logical axes of every parameter, by its dotted path; :mod:`thinkprm_jax.mesh` maps them to mesh axes."""
    axes: dict[str, tuple[str | None, ...]] = {
        "embed.embedding": ("vocab", "embed"),
        "norm.scale": (None,),
    }
    if not config.tie_embeddings:
        axes["head.kernel"] = ("embed", "vocab")
    for i in range(config.num_layers):
        layer = f"layers.{i}"
        for name, inputs, outputs, bias in (
            ("attention.query", "embed", "heads", config.qkv_bias),
            ("attention.key", "embed", "kv_heads", config.qkv_bias),
            ("attention.value", "embed", "kv_heads", config.qkv_bias),
            ("attention.output", "heads", "embed", config.output_bias),
            ("mlp.gate", "embed", "mlp", config.mlp_bias),
            ("mlp.up", "embed", "mlp", config.mlp_bias),
            ("mlp.down", "mlp", "embed", config.mlp_bias),
        ):
            axes[f"{layer}.{name}.kernel"] = (inputs, outputs)
            if bias:
                axes[f"{layer}.{name}.bias"] = (outputs,)
        axes[f"{layer}.attention_norm.scale"] = (None,)
        axes[f"{layer}.mlp_norm.scale"] = (None,)
    return axes


def parameter_shardings(config: ModelConfig, mesh: Mesh) -> dict[str, NamedSharding]:
    """Where every parameter lives on ``mesh``, by its dotted path."""
    counts = axis_counts(config)
    return {path: named_sharding(mesh, axes, counts) for path, axes in parameter_axes(config).items()}
