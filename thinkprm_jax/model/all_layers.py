"""All layers of a decoder in one call of our kernels on CPUs (``cc/layers.h``): of a step, of pieces of prompts.

Beside its products a layer has a dozen small things to do. As operations of XLA's they cost more than they do,
every call of a kernel has to wake threads, and XLA writes into a bfloat16 cache by converting all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decode_step import can_attend
from thinkprm_jax.model.layer import Layer
from thinkprm_jax.model.linear import Linear
from thinkprm_jax.model.norm import RMSNorm
from thinkprm_jax.model.products import load_kernels


def run_layers(
    config: ModelConfig,
    layers: Sequence[Layer],
    norm: RMSNorm,
    x: jax.Array,
    rotations: tuple[jax.Array, jax.Array],
    pieces: jax.Array,
    caches: Sequence[tuple[jax.Array, jax.Array]],
    states: bool = True,
) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]] | None:
    """All layers and the norm behind them, of tokens that go to their places in the cache, in one call.

    Args:
      norm: the one behind the layers.
      x: float32 [N, D], embedded tokens. rotations: cos and sin, [N, 1, h/2] each.
      pieces: as of :func:`.decode_step.attend_pieces`.
      caches: keys and values [B, K, S, h] of every layer; given up.
      states: without, what is returned first is zero, and the last layer stops at keys and values.
    Returns: float32 [N, D], zero where it is padding, and the caches with the tokens; None for a model that the
      kernel is not made for: one with adapters, or whose cache has another dtype than its products.
    Raises:
      ValueError: it is not for such heads or such a cache (:func:`.decode_step.can_attend`).
    """
    dtype = layers[0].attention.query.dtype
    if not can_attend(config.head_dim, caches[0][0].dtype):
        raise ValueError("there is no kernel for such pieces")
    maps = [linear for layer in layers for linear in _linears(layer)]
    if caches[0][0].dtype != dtype or any(linear.lora is not None for linear in maps):
        return None
    cos, sin = (angle.reshape(x.shape[0], -1) for angle in rotations)
    operands = [x, cos, sin, pieces.astype(jnp.int32), _numbers(norm.scale[...])]
    aliases, results = {}, [jax.ShapeDtypeStruct(x.shape, jnp.float32)]
    for layer, pair in zip(layers, caches, strict=True):
        for array in pair:
            aliases[len(operands)] = len(results)
            operands.append(array)
            results.append(jax.ShapeDtypeStruct(array.shape, array.dtype))
        operands += _weights(layer, dtype)
    call = jax.ffi.ffi_call(load_kernels().target("layers"), results, input_output_aliases=aliases)
    first = layers[0]
    x, *changed = call(
        *operands,
        epsilon=np.float32(config.rms_norm_eps),
        heads=np.int64(config.num_heads),
        inner=np.int64(config.intermediate_size),
        qkv_bias=first.attention.query.bias is not None,
        output_bias=first.attention.output.bias is not None,
        mlp_bias=first.mlp.gate.bias is not None,
        head_norms=first.attention.query_norm is not None,
        whole=first.attention.query.kernel_scale is not None,
        states=states,
    )
    return x, list(zip(changed[::2], changed[1::2], strict=True))


def _linears(layer: Layer) -> tuple[Linear, ...]:
    attention, mlp = layer.attention, layer.mlp
    return attention.query, attention.key, attention.value, attention.output, mlp.gate, mlp.up, mlp.down


def _weights(layer: Layer, dtype: DTypeLike) -> list[jax.Array]:
    """In the order in which ``kernels.cc`` reads them."""
    attention, mlp = layer.attention, layer.mlp
    norms = [norm for norm in (attention.query_norm, attention.key_norm) if norm is not None]
    found = [_numbers(layer.attention_norm.scale[...])]
    for linear in (attention.query, attention.key, attention.value):
        found += _map(linear, dtype)
    found += [_numbers(norm.scale[...]) for norm in norms]
    found += [*_map(attention.output, dtype), _numbers(layer.mlp_norm.scale[...])]
    for linear in (mlp.gate, mlp.up, mlp.down):
        found += _map(linear, dtype)
    return found


def _map(linear: Linear, dtype: DTypeLike) -> list[jax.Array]:
    bias = [] if linear.bias is None else [_numbers(linear.bias[...])]
    if linear.kernel_scale is not None:
        return [linear.kernel[...], linear.kernel_scale[...], *bias]
    return [linear.kernel[...].astype(dtype), *bias]


def _numbers(x: jax.Array) -> jax.Array:
    return x if x.dtype in (jnp.float32, jnp.bfloat16) else x.astype(jnp.float32)
