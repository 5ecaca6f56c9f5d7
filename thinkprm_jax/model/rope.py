"""Rotary position embedding, with Llama-3 frequency scaling."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from thinkprm_jax.model.config import ModelConfig, RopeScaling


def rope(config: ModelConfig, positions: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """cos and sin of the rotation angles, float32 [..., 1, h/2] for positions int [...].

    Known positions (a numpy array) give constants. Traced ones should be computed outside of any loop that uses
    them: XLA fuses cosines into every use, once per layer, head and pair.
    """
    h = config.head_dim
    exponents = np.arange(0, h, 2, dtype=np.float32) / np.float32(h)
    inverse = (1.0 / config.rope_theta**exponents).astype(np.float32)
    if config.rope_scaling is not None:
        inverse = _scale_llama3(inverse, config.rope_scaling)
    if isinstance(positions, np.ndarray):
        known = positions.astype(np.float32)[..., None, None] * inverse
        return jnp.asarray(np.cos(known)), jnp.asarray(np.sin(known))
    angles = positions.astype(jnp.float32)[..., None, None] * inverse
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the pairs (i, i + h/2) of x [..., N, h], the pairing of Hugging Face checkpoints.

    Written with the halves as an axis that is flipped: unlike a concatenation, that vectorises inside a fusion.
    """
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    signed_sin = jnp.stack([-sin, sin], axis=-2)
    return (halves * cos[..., None, :] + jnp.flip(halves, axis=-2) * signed_sin).reshape(x.shape)


def _scale_llama3(inverse: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Divides low frequencies by ``factor``, keeps high ones, interpolates between (Llama 3.1)."""
    wavelength = 2 * math.pi / inverse
    turns = scaling.original_max_position_embeddings / wavelength
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = np.clip(smooth, 0.0, 1.0)
    return ((1 - smooth) * inverse / scaling.factor + smooth * inverse).astype(np.float32)
