"""AWQ as AutoAWQ and llm-awq write it (``gemm``): 4 bits, zeros and scales of groups of inputs.

    qweight [in, out / 8] int32, qzeros [in / group, out / 8] int32, scales [in / group, out] float16
    weight[in, out] = (quantised - zero) * scale

Eight outputs share a word, in the order in which AWQ's kernels want them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thinkprm_jax.checkpoint.formats.packed import WAY_OUT, PackedTensor, around, require, unpack_integers
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.errors import UserError

_BITS, _IN_WORD = 4, 8
_PLACE = np.array([0, 4, 1, 5, 2, 6, 3, 7])  # in a word, of each of its outputs


class AwqFormat:
    """A :class:`WeightFormat`."""

    def __init__(self, settings: Mapping[str, Any], where: str) -> None:
        version = str(settings.get("version", "gemm")).lower()
        if version != "gemm":
            raise UserError(f"{where}: AWQ version {version!r} is not supported (we have: gemm); {WAY_OUT}")
        bits = settings.get("bits", settings.get("w_bit", _BITS))
        if bits != _BITS or settings.get("zero_point", True) is not True:
            raise UserError(
                f"{where}: AWQ of {bits!r} bits is supported with 4 bits and zero points only; {WAY_OUT}"
            )
        self._group = settings.get("group_size", settings.get("q_group_size", 128))
        if not isinstance(self._group, int) or (self._group != -1 and self._group < 1):
            raise UserError(f"{where}: AWQ group_size is {self._group!r}")

    def find(self, stored: StoredTensors) -> Mapping[str, PackedTensor]:
        modules = [name.removesuffix(".qweight") for name in stored.tensors if name.endswith(".qweight")]
        return {f"{module}.weight": self._packed(stored, module) for module in modules}

    def _packed(self, stored: StoredTensors, module: str) -> PackedTensor:
        names = [f"{module}.{part}" for part in ("qweight", "qzeros", "scales")]
        require(stored, names[0], ("I32",))
        inputs, words = stored.tensors[names[0]].shape
        group = inputs if self._group == -1 else self._group
        require(stored, names[1], ("I32",), (-(-inputs // group), words))
        require(stored, names[2], ("F16", "BF16", "F32"), (-(-inputs // group), words * _IN_WORD))

        def integers(name: str, part: slice, columns: slice) -> np.ndarray:
            units, inside = around(columns, _IN_WORD)
            values = unpack_integers(stored.stored(name, part, units), _BITS, 1)
            return values.reshape(len(values), -1, _IN_WORD)[..., _PLACE].reshape(len(values), -1)[:, inside]

        def rows(part: slice, columns: slice) -> np.ndarray:
            groups, _ = around(part, group)
            of_group = np.arange(part.start, part.stop) // group - groups.start
            zeros = integers(names[1], groups, columns).astype(np.float32)[of_group]
            scales = stored.stored(names[2], groups, columns).astype(np.float32)[of_group]
            return (integers(names[0], part, columns) - zeros) * scales

        return PackedTensor((inputs, words * _IN_WORD), tuple(names), rows, transposed=True)
