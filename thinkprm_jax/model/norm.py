"""The norm of a decoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from thinkprm_jax.model.decode_step import sum_of_squares
from thinkprm_jax.model.products import Products


class RMSNorm(nnx.Module):
    """x / rms(x) * scale, in float32."""

    def __init__(self, size: int, eps: float, param_dtype: DTypeLike) -> None:
        self.scale = nnx.Param(jnp.ones((size,), param_dtype))
        self.eps = eps
        self.products: Products = "xla"  # another one: :func:`.decoder.use_products`

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.products == "native":
            variance = sum_of_squares(x) / x.shape[-1]
        else:
            variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(variance + self.eps) * self.scale[...].astype(jnp.float32)
