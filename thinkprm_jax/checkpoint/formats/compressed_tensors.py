"""What llm-compressor writes (``compressed-tensors``): 8-bit floats or integers, or 4 and 8 bits packed in words.

float-quantized, naive-quantized, int-quantized: weight [out, in], weight_scale, weight_zero_point
pack-quantized: weight_packed [out, in * bits / 32] int32, weight_scale [out, groups], weight_shape,
                weight_zero_point [out * bits / 32, groups] int32, weight_g_idx [in]
weight = (quantised - zero) * scale, packed numbers being 2^(bits - 1) more than they are
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thinkprm_jax.checkpoint.formats.fp8 import scaled
from thinkprm_jax.checkpoint.formats.packed import (
    WAY_OUT,
    PackedTensor,
    around,
    present,
    read_groups,
    require,
    unpack_integers,
)
from thinkprm_jax.checkpoint.safetensors_io import FP8
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.errors import UserError

_FORMATS = ("float-quantized", "naive-quantized", "int-quantized", "pack-quantized")
_BITS = (4, 8)


class CompressedTensorsFormat:
    """A :class:`WeightFormat`."""

    def __init__(self, settings: Mapping[str, Any], where: str) -> None:
        self._format = settings.get("format")
        if self._format not in _FORMATS:
            have = ", ".join(_FORMATS)
            raise UserError(f"{where}: format {self._format!r} is not supported (we have: {have}); {WAY_OUT}")
        sparsity = (settings.get("sparsity_config") or {}).get("format", "dense")
        if sparsity != "dense":
            raise UserError(f"{where}: sparsity_config {sparsity!r} is not supported; {WAY_OUT}")
        groups = [group.get("weights") or {} for group in (settings.get("config_groups") or {}).values()]
        kinds = {
            str([group.get(key) for key in ("num_bits", "group_size", "block_structure")]) for group in groups
        }
        if len(kinds) != 1:
            raise UserError(
                f"{where}: {len(kinds)} kinds of packed layers are not supported (we have: 1); {WAY_OUT}"
            )
        self._bits: int = groups[0].get("num_bits", 0)
        self._group = groups[0].get("group_size")
        if self._format == "pack-quantized" and self._bits not in _BITS:
            raise UserError(f"{where}: {self._bits!r} packed bits are not supported (we have: 4, 8); {WAY_OUT}")
        block = groups[0].get("block_structure")
        self._block = (int(block[0]), int(block[1])) if isinstance(block, list) and len(block) == 2 else None

    def find(self, stored: StoredTensors) -> Mapping[str, PackedTensor]:
        if self._format == "pack-quantized":
            suffix = ".weight_packed"
            modules = [name.removesuffix(suffix) for name in stored.tensors if name.endswith(suffix)]
            return {f"{module}.weight": self._packed(stored, module) for module in modules}
        dtypes = (*FP8, "I8")
        modules = [
            name.removesuffix(".weight")
            for name, info in stored.tensors.items()
            if info.dtype in dtypes and name.endswith(".weight")
        ]
        return {f"{module}.weight": scaled(stored, module, dtypes, self._block) for module in modules}

    def _packed(self, stored: StoredTensors, module: str) -> PackedTensor:
        weight, scale, size = (f"{module}.{part}" for part in ("weight_packed", "weight_scale", "weight_shape"))
        zero, order = (present(stored, module, part) for part in ("weight_zero_point", "weight_g_idx"))
        require(stored, weight, ("I32",))
        require(stored, size, ("I64", "I32"), (2,))
        outputs, inputs = map(int, stored.stored(size))
        in_word, bits = 32 // self._bits, self._bits
        if stored.tensors[weight].shape != (outputs, -(-inputs // in_word)):
            raise UserError(f"{stored.folder}: {weight} does not hold the {outputs} x {inputs} that {size} says")
        group = inputs if self._group in (None, -1) else int(self._group)
        count = -(-inputs // group)
        require(stored, scale, ("F16", "BF16", "F32"), (outputs, count))
        if zero:
            require(stored, zero[0], ("I32",), (-(-outputs // in_word), count))
        if order:
            require(stored, order[0], ("I32", "I64"), (inputs,))

        def rows(part: slice, columns: slice) -> np.ndarray:
            units, inside = around(columns, in_word)
            values = unpack_integers(stored.stored(weight, part, units), bits, 1)[:, inside].astype(np.float32)
            groups = (
                read_groups(stored, order[0], columns, count)
                if order
                else np.arange(columns.start, columns.stop) // group
            )
            scales = stored.stored(scale, part, slice(None)).astype(np.float32)[:, groups]
            if not zero:
                return (values - np.float32(2 ** (bits - 1))) * scales
            units, inside = around(part, in_word)
            zeros = unpack_integers(stored.stored(zero[0], units, slice(None)), bits, 0)[inside].astype(np.float32)
            return (values - zeros[:, groups]) * scales  # both are moved by 2^(bits - 1)

        return PackedTensor((outputs, inputs), (weight, scale, size, *zero, *order), rows)
