"""8-bit floats with scales: Qwen3-FP8 and DeepSeek (a scale for each block), FBGEMM (for each output), vLLM (one).

    weight [out, in] float8, weight_scale_inv or weight_scale: [1], [out, 1], or [out / block, in / block]
    weight = float8 * scale

Scales of activations are for products in 8 bits. Ours take their inputs in the dtype of the model, so such scales
are left aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thinkprm_jax.checkpoint.formats.packed import PackedTensor, present, require
from thinkprm_jax.checkpoint.safetensors_io import FP8
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.errors import UserError

_SCALES = ("weight_scale_inv", "weight_scale")


class Fp8Format:
    """A :class:`WeightFormat`."""

    def __init__(self, settings: Mapping[str, Any], where: str) -> None:
        block = settings.get("weight_block_size")
        if block is not None and not (
            isinstance(block, list)
            and len(block) == 2
            and all(isinstance(size, int) and size > 0 for size in block)
        ):
            raise UserError(f"{where}: weight_block_size is {block!r}, not two sizes")
        self._block = None if block is None else (block[0], block[1])

    def find(self, stored: StoredTensors) -> Mapping[str, PackedTensor]:
        modules = [
            name.removesuffix(".weight")
            for name, info in stored.tensors.items()
            if info.dtype in FP8 and name.endswith(".weight")
        ]
        return {f"{module}.weight": scaled(stored, module, tuple(FP8), self._block) for module in modules}


def scaled(
    stored: StoredTensors, module: str, dtypes: tuple[str, ...], block: tuple[int, int] | None
) -> PackedTensor:
    """A weight of numbers times scales, less zeros where there are some.

    Args:
      dtypes: that the numbers may have. block: outputs and inputs that share a scale; None: as the shapes say.
    """
    weight = f"{module}.weight"
    require(stored, weight, dtypes)
    shape = stored.tensors[weight].shape
    found = present(stored, module, *_SCALES)
    if not found or len(shape) != 2:
        raise UserError(f"{stored.folder}: {weight} is {stored.tensors[weight].dtype} and has no {_SCALES[1]}")
    scale, zero = found[0], present(stored, module, "weight_zero_point")
    sizes = _sizes(stored, scale, (shape[0], shape[1]), block)

    def rows(part: slice, columns: slice) -> np.ndarray:
        numbers = stored.stored(weight, part, columns).astype(np.float32)
        outputs, inputs = np.arange(part.start, part.stop), np.arange(columns.start, columns.stop)
        place = (outputs // sizes[0])[:, None], inputs // sizes[1]
        if zero:
            numbers -= _matrix(stored.stored(zero[0])).astype(np.float32)[place]
        return numbers * _matrix(stored.stored(scale)).astype(np.float32)[place]

    return PackedTensor((shape[0], shape[1]), (weight, scale, *zero), rows)


def _matrix(scales: np.ndarray) -> np.ndarray:
    """[rows, columns] of scales that may be one number, or one for each output."""
    return scales.reshape(scales.shape if scales.ndim == 2 else (-1, 1))


def _sizes(
    stored: StoredTensors, scale: str, shape: tuple[int, int], block: tuple[int, int] | None
) -> tuple[int, int]:
    """How many outputs and inputs share a scale."""
    found = stored.tensors[scale].shape
    counts = found if len(found) == 2 else (found[0] if found else 1, 1)
    if block is not None and counts == tuple(-(-size // unit) for size, unit in zip(shape, block, strict=True)):
        return block
    if counts == (1, 1):
        return shape
    if counts[0] in (1, shape[0]) and shape[1] % counts[1] == 0 and (counts[1] == 1 or block is None):
        return shape[0] // counts[0], shape[1] // counts[1]
    raise UserError(f"{stored.folder}: {scale} is {list(found)}, which does not fit a weight of {list(shape)}")
