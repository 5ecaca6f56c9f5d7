"""How much device memory a decoder and its cache take, from shapes alone: what a program that holds several models
side by side plans with before it loads any. Activations are not in these figures."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from thinkprm_jax.distributed.mesh import axis_counts, named_sharding
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.parameters import parameter_shapes, parameter_shardings, quantized_paths
from thinkprm_jax.model.quantization import SUFFIX, Quantization

_STEPS = 32  # of a decode call
_BLOCK = 16  # a cache without the columns of a call is a multiple of it
_SPARE = 128  # positions that the sampler adds for a token that is broken at the end


def weight_bytes(
    config: ModelConfig, dtype: DTypeLike, mesh: Mesh | None = None, quantization: Quantization | None = None
) -> int:
    """Of all parameters stored in ``dtype``, or what is not quantised of them; with a mesh, of those that one of
    its devices holds."""
    shapes = parameter_shapes(config, quantization)
    if mesh is not None:
        shardings = parameter_shardings(config, mesh, quantization)
        shapes = {path: shardings[path].shard_shape(shape) for path, shape in shapes.items()}
    sizes = dict.fromkeys(shapes, jnp.dtype(dtype).itemsize)
    if quantization is not None:
        for path in quantized_paths(shapes):
            sizes |= {path: 1, path + SUFFIX: 4}
    return sum(math.prod(shape) * sizes[path] for path, shape in shapes.items())


def cache_bytes(
    config: ModelConfig,
    slots: int,
    max_length: int,
    dtype: DTypeLike,
    mesh: Mesh | None = None,
    drafts: int = 0,
) -> int:
    """Of the cache of a sampler with ``slots`` rows once one of them has ``max_length`` tokens; before, it is
    shorter (see :mod:`thinkprm_jax.model.cache`). With a mesh, of what one of its devices holds.
    drafts: tokens that a step tries at once; a call of such steps has twice the columns, and a last wide one.
    """
    columns = 2 * _STEPS + drafts if drafts else _STEPS
    room = max_length + _SPARE + columns  # the tokens, and room for a call behind them
    positions = -(-room // _BLOCK) * _BLOCK + columns  # and the call's own
    shape: tuple[int, ...] = (slots, config.num_kv_heads, positions, config.head_dim)
    if mesh is not None:
        axes = ("batch", "kv_heads", None, None)
        shape = named_sharding(mesh, axes, {**axis_counts(config), "batch": slots}).shard_shape(shape)
    return 2 * config.num_layers * math.prod(shape) * jnp.dtype(dtype).itemsize
