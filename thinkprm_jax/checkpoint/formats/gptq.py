"""GPTQ as AutoGPTQ, GPTQModel and their predecessors write it: 2, 4 or 8 bits.

    qweight [in * bits / 32, out] int32, qzeros [groups, out * bits / 32] int32, scales [groups, out] float16
    g_idx [in] int32: the group of each input, where they were quantised in another order (``desc_act``)
    weight[in, out] = (quantised - zero) * scale

Files say one less than the zero (``checkpoint_format: gptq``, the default) or the zero itself (``gptq_v2``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thinkprm_jax.checkpoint.formats.packed import (
    WAY_OUT,
    PackedTensor,
    around,
    present,
    read_groups,
    require,
    unpack_integers,
)
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.errors import UserError

_BITS = (2, 4, 8)  # those of which a word holds a whole number


class GptqFormat:
    """A :class:`WeightFormat`."""

    def __init__(self, settings: Mapping[str, Any], where: str) -> None:
        self._bits: int = settings.get("bits", 0)
        self._group = settings.get("group_size", 128)
        if self._bits not in _BITS:
            have = ", ".join(map(str, _BITS))
            raise UserError(f"{where}: GPTQ of {self._bits!r} bits is not supported (we have: {have}); {WAY_OUT}")
        if not isinstance(self._group, int) or (self._group != -1 and self._group < 1):
            raise UserError(f"{where}: GPTQ group_size is {self._group!r}")
        layout = settings.get("checkpoint_format") or "gptq"
        if layout not in ("gptq", "gptq_v2") or settings.get("is_marlin_format"):
            have = "we have: gptq, gptq_v2"
            raise UserError(f"{where}: GPTQ checkpoint_format {layout!r} is not supported ({have}); {WAY_OUT}")
        if any(not str(pattern).startswith("-:") for pattern in settings.get("dynamic") or {}):
            raise UserError(f"{where}: GPTQ with other bits for some layers (dynamic) is not supported; {WAY_OUT}")
        # One for each zero in a word. It is added to the whole word, as the tools take it away: a zero of 0 has
        # borrowed from its neighbour.
        self._one = np.uint32(0 if layout == "gptq_v2" else sum(1 << shift for shift in range(0, 32, self._bits)))

    def find(self, stored: StoredTensors) -> Mapping[str, PackedTensor]:
        modules = [name.removesuffix(".qweight") for name in stored.tensors if name.endswith(".qweight")]
        return {f"{module}.weight": self._packed(stored, module) for module in modules}

    def _packed(self, stored: StoredTensors, module: str) -> PackedTensor:
        weight, zero, scale, order = (f"{module}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))
        require(stored, weight, ("I32",))
        words, outputs = stored.tensors[weight].shape
        in_word = 32 // self._bits
        inputs = words * in_word
        group = inputs if self._group == -1 else self._group
        count = -(-inputs // group)
        require(stored, zero, ("I32",), (count, outputs // in_word))
        require(stored, scale, ("F16", "BF16", "F32"), (count, outputs))
        ordered = bool(present(stored, module, "g_idx"))
        if ordered:
            require(stored, order, ("I32", "I64"), (inputs,))

        def groups_of(part: slice) -> np.ndarray:
            if not ordered:
                return np.arange(part.start, part.stop) // group
            return read_groups(stored, order, part, count)

        def rows(part: slice, columns: slice) -> np.ndarray:
            units, inside = around(part, in_word)
            values = unpack_integers(stored.stored(weight, units, columns), self._bits, 0)[inside]
            groups = groups_of(part)
            held = slice(int(groups.min()), int(groups.max()) + 1)
            zero_units, zero_inside = around(columns, in_word)
            zero_words = stored.stored(zero, held, zero_units).view(np.uint32) + self._one
            zeros = unpack_integers(zero_words, self._bits, 1)[:, zero_inside].astype(np.float32)
            scales = stored.stored(scale, held, columns).astype(np.float32)
            return (values - zeros[groups - held.start]) * scales[groups - held.start]

        parts = (weight, zero, scale, *((order,) if ordered else ()))
        return PackedTensor((inputs, outputs), parts, rows, transposed=True)
