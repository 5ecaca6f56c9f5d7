"""Weights in eight bits: whole numbers to 127, and a float32 scale for each output of a map.

A quarter of float32's bytes, and a decode step takes as long as reading its weights. What is quantised: the maps
of all layers, the embedding and the head. Norms, biases and the heads of reward models stay as they are.

    y[o] = scale[o] * sum over i of x[i] * whole[i, o]

XLA multiplies inputs of the model's dtype with the whole numbers, which each dtype holds exactly. Our kernels on
CPUs round inputs to eight bits too, 128 of them with a scale of their own (``cc/kinds.h``): products of whole
numbers are what processors do fastest, and outliers among inputs spoil their own group alone.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Quantization = Literal["int8"]
LARGEST = 127
SUFFIX = "_scale"  # of a parameter's name: the scales of the parameter that is named before it

Array = TypeVar("Array", np.ndarray, jax.Array)


def quantize(weights: Array, inputs: int) -> tuple[Array, Array]:
    """Float weights of two dimensions in eight bits.

    Example:

        kernel = jnp.asarray([[0.5, 2.0], [-1.0, 4.0]])  # [in, out]
        whole, scale = quantize(kernel, inputs=0)
        print(jnp.abs(whole * scale - kernel).max())  # at most half a scale

    Args:
      weights: [in, out] or [out, in]. inputs: the axis over which products are summed.
    Returns: int8 of the same shape, float32 [out]. An output without weights has the scale 1.
    """
    xp = np if isinstance(weights, np.ndarray) else jnp
    wide = weights.astype(np.float32)
    largest = xp.maximum(wide.max(inputs), -wide.min(inputs))
    scale = xp.where(largest > 0, largest / np.float32(LARGEST), np.float32(1))
    return xp.rint(wide / xp.expand_dims(scale, inputs)).astype(np.int8), scale
