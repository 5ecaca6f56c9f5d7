"""Adapters added to their base, for comparison."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from thinkprm_jax.model.lora import LoraSpec


def merged(
    params: Mapping[str, jax.Array], frozen: Mapping[str, jax.Array], spec: LoraSpec
) -> dict[str, jax.Array]:
    """The adapters of ``params`` added to the weights of ``frozen``, in float32; other weights as they are."""
    weights = dict(frozen)
    for name in params:
        if name.endswith(".lora_a"):
            path = name.removesuffix(".lora_a")
            weights[f"{path}.kernel"] = _merge_one(
                frozen[f"{path}.kernel"], params[name], params[f"{path}.lora_b"], spec
            )
    return weights


def _merge_one(kernel: jax.Array, a: jax.Array, b: jax.Array, spec: LoraSpec) -> jax.Array:
    """W + (alpha / rank) A B: [in, out], [in, r], [r, out] -> float32 [in, out]."""
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    return kernel.astype(jnp.float32) + spec.scale * product
