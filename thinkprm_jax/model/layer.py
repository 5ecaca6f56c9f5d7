"""One layer of a decoder: attention and a gated MLP, each behind a norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from thinkprm_jax.model.kernels import Execution
from thinkprm_jax.model.linear import Build, side_by_side
from thinkprm_jax.model.norm import RMSNorm
from thinkprm_jax.model.rope import rotate


class Attention(nnx.Module):
    """Projections of grouped-query attention; the attention itself is in :mod:`.attention`."""

    def __init__(self, build: Build) -> None:
        config = build.config
        d, heads = config.hidden_size, config.num_heads * config.head_dim
        kv_heads = config.num_kv_heads * config.head_dim
        self.query = build.linear(d, heads, config.qkv_bias, "attention.query")
        self.key = build.linear(d, kv_heads, config.qkv_bias, "attention.key")
        self.value = build.linear(d, kv_heads, config.qkv_bias, "attention.value")
        self.output = build.linear(heads, d, config.output_bias, "attention.output")
        self.query_norm, self.key_norm = (
            RMSNorm(config.head_dim, config.rms_norm_eps, build.param_dtype) if config.qk_norm else None
            for _ in range(2)
        )
        self.head_dim = config.head_dim

    def project(
        self, x: jax.Array, cos: jax.Array, sin: jax.Array, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[..., D] -> q [..., H, h] (rotated, scaled), k [..., K, h] (rotated), v [..., K, h]."""

        q, k, v = (
            y.reshape(*y.shape[:-1], -1, self.head_dim)
            for y in side_by_side((self.query, self.key, self.value), x, dropout_key)
        )
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotate(q, cos, sin) * self.head_dim**-0.5, rotate(k, cos, sin), v

    def merge(self, heads: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """[..., H, h] -> [..., D]."""
        return self.output(heads.reshape(*heads.shape[:-2], -1), dropout_key)


class MLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, build: Build) -> None:
        config = build.config
        d, f, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate = build.linear(d, f, bias, "mlp.gate")
        self.up = build.linear(d, f, bias, "mlp.up")
        self.down = build.linear(f, d, bias, "mlp.down")

    def __call__(self, x: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        gate, up = side_by_side((self.gate, self.up), x, dropout_key)
        return self.down(jax.nn.silu(gate) * up, dropout_key)


class Layer(nnx.Module):
    """One pre-norm block."""

    def __init__(self, build: Build) -> None:
        config = build.config
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, build.param_dtype)
        self.attention = Attention(build)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, build.param_dtype)
        self.mlp = MLP(build)

    def sequence(
        self,
        x: jax.Array,
        cos: jax.Array,
        sin: jax.Array,
        segment_ids: jax.Array | None,
        dropout_key: jax.Array | None,
        execution: Execution,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The residual stream [B, T, D] after this block, and its k, v [B, T, K, h]."""
        q, k, v = self.attention.project(self.attention_norm(x), cos, sin, dropout_key)
        attended = execution.attend(q, k, v, segment_ids, self.attention.query.dtype)
        x = x + self.attention.merge(attended, dropout_key)
        x = x + self.mlp(self.mlp_norm(x), dropout_key)
        return execution.constrain(x, "batch", None, None), k, v


def scan_layers(
    layer: Layer,
    x: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    segment_ids: jax.Array | None,
    dropout_key: jax.Array | None,
    execution: Execution,
) -> jax.Array:
    """The residual stream [B, T, D] after all layers, in one loop over their parameters, which ``layer`` holds
    stacked [L, ...]. ``dropout_key``: of the model; each layer draws what it draws without a loop."""
    graph, weights = nnx.split(layer)
    count = jax.tree.leaves(weights)[0].shape[0]

    def run(x: jax.Array, weights: nnx.State, number: jax.Array) -> jax.Array:
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, number)
        return nnx.merge(graph, weights).sequence(x, cos, sin, segment_ids, key, execution)[0]

    run = execution.checkpointed(run)
    return jax.lax.scan(lambda x, inputs: (run(x, *inputs), None), x, (weights, jnp.arange(count)))[0]
