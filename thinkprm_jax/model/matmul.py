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

from thinkprm_jax.model.products import TrainingProducts, multiply


def contract(
    spec: str, a: jax.Array, b: jax.Array, dtype: DTypeLike, products: TrainingProducts = "xla"
) -> jax.Array:
    """Two-operand einsum: inputs rounded to ``dtype``, products accumulated in float32, result float32.

    Every index must appear in at least two of the three terms of ``spec`` (no index is summed away inside one
    operand), which is what makes the backward products einsums of the same form.

    products: what computes it and its gradients; another one than "xla" only where ``a`` is [..., K] and ``b`` a
    matrix [K, N].
    """
    return _contract(spec, jnp.dtype(dtype), products, a, b)


def einsum(spec: str, a: jax.Array, b: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The same without a derivative of its own: for functions that bring theirs."""
    dtype = jnp.dtype(dtype)
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    return jnp.einsum(
        spec, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32, precision=precision
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _contract(spec: str, dtype: jnp.dtype, products: TrainingProducts, a: jax.Array, b: jax.Array) -> jax.Array:
    return _forward(spec, dtype, products, a, b)[0]


def _forward(spec, dtype, products, a, b):
    # What the backward pass needs is kept as the products take it: half the memory in bfloat16.
    a, kept = a.astype(dtype), (jnp.zeros((), a.dtype), jnp.zeros((), b.dtype))
    y = multiply(a, [b], dtype) if products == "native" else None
    return einsum(spec, a, b, dtype) if y is None else y[0], (a, b, kept)


def _backward(spec, dtype, products, saved, cotangent):
    a, b, (like_a, like_b) = saved
    inputs, out = spec.split("->")
    first, second = inputs.split(",")
    cotangent = cotangent.astype(dtype)
    by_kernel = multiply(cotangent, [b], dtype, transposed=True) if products == "native" else None
    grad_a = einsum(f"{out},{second}->{first}", cotangent, b, dtype) if by_kernel is None else by_kernel[0]
    grad_b = None if products == "xla" else _weight_gradient(a, cotangent, dtype)
    if grad_b is None:
        grad_b = einsum(f"{out},{first}->{second}", cotangent, a, dtype)
    return grad_a.astype(like_a.dtype), grad_b.astype(like_b.dtype)


_contract.defvjp(_forward, _backward)


def _weight_gradient(a: jax.Array, cotangent: jax.Array, dtype: jnp.dtype) -> jax.Array | None:
    """a [..., K] and its product's cotangent [..., N] -> [K, N], or None where XLA is faster."""
    columns = a.astype(dtype).reshape(-1, a.shape[-1]).T
    found = multiply(columns, [cotangent.reshape(-1, cotangent.shape[-1])], dtype)
    return None if found is None else found[0]
