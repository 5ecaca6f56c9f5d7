"""Matrix products with a chosen input dtype and float32 results, forward and backward.

``jnp.einsum`` differentiates a bfloat16 product into products of a float32 cotangent with a bfloat16 operand,
which every backend then computes in float32. Here both backward products take their inputs in the same dtype
as the forward product and still accumulate in float32: half the traffic on accelerators, and the only fast way
on CPUs with bfloat16 instructions.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from thinkprm_jax.model.products import Products, multiply


def contract(
    spec: str, a: jax.Array, b: jax.Array, dtype: DTypeLike, weight_gradient: Products = "xla"
) -> jax.Array:
    """Two-operand einsum: inputs rounded to ``dtype``, products accumulated in float32, result float32.

    Every index must appear in at least two of the three terms of ``spec`` (no index is summed away inside one
    operand), which is what makes the backward products einsums of the same form.

    weight_gradient: what computes the gradient of ``b``; "native" only where ``b`` is a matrix [K, N] and ``a`` is
    [..., K].
    """
    return _contract(spec, jnp.dtype(dtype), weight_gradient, a, b)


def einsum(spec: str, a: jax.Array, b: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The same without a derivative of its own: for functions that bring theirs."""
    dtype = jnp.dtype(dtype)
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    return jnp.einsum(
        spec, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32, precision=precision
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _contract(spec: str, dtype: jnp.dtype, weight_gradient: Products, a: jax.Array, b: jax.Array) -> jax.Array:
    return einsum(spec, a, b, dtype)


def _forward(spec, dtype, weight_gradient, a, b):
    return einsum(spec, a, b, dtype), (a, b)


def _backward(spec, dtype, weight_gradient, saved, cotangent):
    a, b = saved
    inputs, out = spec.split("->")
    first, second = inputs.split(",")
    grad_a = einsum(f"{out},{second}->{first}", cotangent, b, dtype)
    grad_b = _native_weight_gradient(a, cotangent, dtype) if weight_gradient == "native" else None
    if grad_b is None:
        grad_b = einsum(f"{out},{first}->{second}", cotangent, a, dtype)
    return grad_a.astype(a.dtype), grad_b.astype(b.dtype)


_contract.defvjp(_forward, _backward)


def _native_weight_gradient(a: jax.Array, cotangent: jax.Array, dtype: jnp.dtype) -> jax.Array | None:
    """a [..., K] and its product's cotangent [..., N] -> [K, N], or None where XLA is faster."""
    columns = a.astype(dtype).reshape(-1, a.shape[-1]).T
    found = multiply(columns, [cotangent.reshape(-1, cotangent.shape[-1])], dtype)
    return None if found is None else found[0]
