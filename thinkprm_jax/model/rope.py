"""Rotary position embedding, and the scalings of its frequencies."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.rope_config import LinearScaling, Llama3Scaling, YarnScaling


def rope(config: ModelConfig, positions: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """cos and sin of the rotation angles, float32 [..., 1, h/2] for positions int [...]; with yarn they are longer
    than 1.

    Known positions (a numpy array) give constants. Traced ones should be computed outside of any loop that uses
    them: XLA fuses cosines into every use, once per layer, head and pair.
    """
    inverse = frequencies(config)
    scale = config.rope_scaling.attention_scale if isinstance(config.rope_scaling, YarnScaling) else 1.0
    if isinstance(positions, np.ndarray):
        known = positions.astype(np.float32)[..., None, None] * inverse
        cos, sin = np.cos(known), np.sin(known)
        if scale != 1.0:
            cos, sin = cos * np.float32(scale), sin * np.float32(scale)
        return jnp.asarray(cos), jnp.asarray(sin)
    angles = positions.astype(jnp.float32)[..., None, None] * inverse
    if scale != 1.0:
        return jnp.cos(angles) * scale, jnp.sin(angles) * scale
    return jnp.cos(angles), jnp.sin(angles)


def frequencies(config: ModelConfig) -> np.ndarray:
    """Radians that a position turns each pair by, float32 [h/2]."""
    h = config.head_dim
    exponents = np.arange(0, h, 2, dtype=np.float32) / np.float32(h)
    inverse = (1.0 / config.rope_theta**exponents).astype(np.float32)
    scaling = config.rope_scaling
    if isinstance(scaling, LinearScaling):
        return (inverse / scaling.factor).astype(np.float32)
    if isinstance(scaling, Llama3Scaling):
        return _scale_llama3(inverse, scaling)
    if isinstance(scaling, YarnScaling):
        return _scale_yarn(inverse, scaling, config.rope_theta)
    return inverse


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the pairs (i, i + h/2) of x [..., N, h], the pairing of Hugging Face checkpoints.

    Written with the halves as an axis that is flipped: unlike a concatenation, that vectorises inside a fusion.
    """
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    signed_sin = jnp.stack([-sin, sin], axis=-2)
    return (halves * cos[..., None, :] + jnp.flip(halves, axis=-2) * signed_sin).reshape(x.shape)


def _scale_llama3(inverse: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    """Divides low frequencies by ``factor``, keeps high ones, interpolates between (Llama 3.1)."""
    wavelength = 2 * math.pi / inverse
    turns = scaling.original_max_position_embeddings / wavelength
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = np.clip(smooth, 0.0, 1.0)
    return ((1 - smooth) * inverse / scaling.factor + smooth * inverse).astype(np.float32)


def _scale_yarn(inverse: np.ndarray, scaling: YarnScaling, theta: float) -> np.ndarray:
    """Keeps the frequencies that turn more than ``beta_fast`` times within the original length, divides those that
    turn less than ``beta_slow`` times by ``factor``, and goes from one to the other in equal steps a pair."""
    h = 2 * len(inverse)

    def pair(turns: float) -> float:
        """The pair, a fraction, that turns so many times within the original length."""
        ratio = scaling.original_max_position_embeddings / (2 * math.pi * turns)
        return h * math.log(ratio) / (2 * math.log(theta))

    first, last = pair(scaling.beta_fast or 32.0), pair(scaling.beta_slow or 1.0)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, h - 1)
    last += 0.001 if first == last else 0.0
    divided = np.clip((np.arange(len(inverse), dtype=np.float32) - first) / (last - first), 0.0, 1.0)
    return (inverse / scaling.factor * divided + inverse * (1 - divided)).astype(np.float32)
