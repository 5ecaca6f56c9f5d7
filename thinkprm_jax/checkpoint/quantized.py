"""Weights of any checkpoint in eight bits, made while they are read; and those of a decoder in memory.

A scale is of all inputs of an output, so an output's inputs are read together, however they are split over
devices; a part of the outputs at a time, so that the host never holds a matrix in float32.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from flax import nnx

from thinkprm_jax.checkpoint.names import StoredTensor
from thinkprm_jax.checkpoint.weights import Weights
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.linear import Linear
from thinkprm_jax.model.parameters import inputs_axis, quantized_paths
from thinkprm_jax.model.quantization import SUFFIX, Quantization, quantize

_PART_BYTES = 2**25  # of float32 at a time
_BLOCK = 2**18  # numbers that a thread quantises at a time


class QuantizedTensor:
    """A matrix of a checkpoint as whole numbers and scales. What was read is kept for pieces of the same outputs.

    Args:
      tensor, shape: the parameter, in our orientation. pool: threads.
    """

    def __init__(
        self, weights: Weights, tensor: StoredTensor, shape: tuple[int, ...], pool: ThreadPoolExecutor
    ) -> None:
        self._weights, self._tensor, self._shape, self._pool = weights, tensor, shape, pool
        self._inputs = inputs_axis(tensor.path)
        self._read: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def whole(self, index: tuple[slice, ...]) -> np.ndarray:
        """A piece of the numbers: int8."""
        outputs = index[1 - self._inputs]
        numbers = self._outputs(outputs)[0]
        inputs = index[self._inputs]
        return np.ascontiguousarray(numbers[inputs] if self._inputs == 0 else numbers[:, inputs])

    def scale(self, index: tuple[slice, ...]) -> np.ndarray:
        """A piece of the scales: float32."""
        return self._outputs(index[0])[1]

    def _outputs(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        size, inputs = self._shape[1 - self._inputs], self._shape[self._inputs]
        first, last, _ = part.indices(size)
        if (first, last) in self._read:
            return self._read[first, last]
        sizes = (inputs, last - first) if self._inputs == 0 else (last - first, inputs)
        numbers, scale = np.empty(sizes, np.int8), np.empty(last - first, np.float32)
        step = max(_PART_BYTES // (4 * inputs), 1)
        for start in range(first, last, step):
            stop = min(start + step, last)
            index = [slice(None), slice(None)]
            index[1 - self._inputs] = slice(start, stop)
            floats = self._weights.read(self._tensor, tuple(index), np.dtype(np.float32), self._pool)
            self._quantize(floats, numbers, scale, start - first)
        self._read[first, last] = numbers, scale
        return numbers, scale

    def _quantize(self, floats: np.ndarray, numbers: np.ndarray, scale: np.ndarray, at: int) -> None:
        """Some outputs from ``at`` on, by all threads."""
        count = floats.shape[1 - self._inputs]
        step = max(_BLOCK // self._shape[self._inputs], 16)

        def part(start: int) -> None:
            here, to = slice(start, start + step), slice(at + start, min(at + start + step, at + count))
            if self._inputs == 0:
                numbers[:, to], scale[to] = quantize(floats[:, here], 0)
            else:
                numbers[to], scale[to] = quantize(floats[here], 1)

        list(self._pool.map(part, range(0, count, step)))


def quantize_decoder(model: Decoder, quantization: Quantization = "int8") -> Decoder:
    """A decoder with the same weights in eight bits; the rest is shared with ``model``.

    Example:

        from thinkprm_jax.checkpoint.quantized import quantize_decoder

        model, tokenizer = load_model("mini")
        small = quantize_decoder(model)
        sampler = Sampler(small, tokenizer)

    Raises:
      UserError: it has adapters, which are merged first (`thinkprm export`), or is quantised already.
    """
    if model.quantization is not None:
        raise UserError(f"the model's weights are {model.quantization} already")
    if any(isinstance(part, Linear) and part.lora is not None for _, part in nnx.iter_graph(model)):
        raise UserError("a model with adapters cannot be quantised: merge them first")
    values = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    for path in quantized_paths(list(values)):
        values[path], values[path + SUFFIX] = jax.jit(quantize, static_argnums=1)(values[path], inputs_axis(path))
    param_dtype = model.norm.scale[...].dtype
    small = nnx.eval_shape(
        lambda: Decoder(
            model.config,
            rngs=nnx.Rngs(0),
            param_dtype=param_dtype,
            dtype=model.dtype,
            execution=model.execution,
            quantization=quantization,
        )
    )
    graph, state = nnx.split(small)
    loaded = [(path, leaf.replace(values[".".join(map(str, path))])) for path, leaf in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(loaded))
