"""bitsandbytes: 4 bits as places in a table (nf4, fp4), or 8 bits with a scale for each output.

weight [n / 2, 1] uint8, weight.quant_map [16], weight.absmax [n / block]: weight = quant_map[place] * absmax
with the largest numbers quantised in turn (double quantisation): absmax [n / block] uint8, weight.nested_quant_map
[256], weight.nested_absmax: absmax = nested_quant_map[absmax] * nested_absmax + nested_offset
weight.quant_state.bitsandbytes__nf4: the sizes, as JSON
8 bits: weight [out, in] int8, SCB [out]: weight = int8 * SCB / 127
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from thinkprm_jax.checkpoint.formats.packed import PackedTensor, present, require
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.errors import UserError

_STATE = ".quant_state.bitsandbytes__"


class BitsAndBytesFormat:
    """A :class:`WeightFormat`."""

    def __init__(self, settings: Mapping[str, Any], where: str) -> None:
        """Nothing of the settings is needed: each weight says how it was stored."""

    def find(self, stored: StoredTensors) -> Mapping[str, PackedTensor]:
        found = {}
        for name in stored.tensors:
            weight, state, _ = name.partition(_STATE)
            if state:
                found[weight] = _four_bits(stored, weight, name)
            elif name.endswith(".SCB"):
                weight = f"{name.removesuffix('.SCB')}.weight"
                found[weight] = _eight_bits(stored, weight, name)
        return found


def _eight_bits(stored: StoredTensors, weight: str, scale: str) -> PackedTensor:
    require(stored, weight, ("I8",))
    outputs, inputs = stored.tensors[weight].shape
    require(stored, scale, ("F32",), (outputs,))

    def rows(part: slice, columns: slice) -> np.ndarray:
        scales = stored.stored(scale, part) / np.float32(127)
        return stored.stored(weight, part, columns).astype(np.float32) * scales[:, None]

    aside = present(stored, weight.removesuffix(".weight"), "weight_format")
    return PackedTensor((outputs, inputs), (weight, scale, *aside), rows)


def _four_bits(stored: StoredTensors, weight: str, state: str) -> PackedTensor:
    try:
        said = json.loads(stored.stored(state).tobytes())
        outputs, inputs = map(int, said["shape"])
        block, nested = int(said["blocksize"]), int(said.get("nested_blocksize") or 0)
        offset = np.float32(said.get("nested_offset") or 0.0)
        if block < 1 or nested < 0 or outputs < 1 or inputs < 1 or inputs % 2:
            raise ValueError("sizes")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{stored.folder}: {state} cannot be read ({error})") from None
    blocks = -(-outputs * inputs // block)
    require(stored, weight, ("U8",), (outputs * inputs // 2, 1))
    require(stored, f"{weight}.quant_map", ("F32",), (16,))
    require(stored, f"{weight}.absmax", ("U8",) if nested else ("F32",), (blocks,))
    if nested:
        require(stored, f"{weight}.nested_quant_map", ("F32",), (256,))
        require(stored, f"{weight}.nested_absmax", ("F32",), (-(-blocks // nested),))

    def largest(part: slice) -> np.ndarray:
        """Of each of these blocks."""
        found = stored.stored(f"{weight}.absmax", part)
        if not nested:
            return found
        of = np.arange(part.start, part.stop) // nested
        scales = stored.stored(f"{weight}.nested_absmax")[of]
        return stored.stored(f"{weight}.nested_quant_map")[found] * scales + offset

    def rows(part: slice, columns: slice) -> np.ndarray:
        first, last = part.start * inputs, part.stop * inputs
        pairs = stored.stored(weight, slice(first // 2, last // 2), slice(None))[:, 0]
        places = np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1)  # the first of a pair in the upper half
        held = slice(first // block, -(-last // block))
        scales = largest(held)[np.arange(first, last) // block - held.start]
        values = stored.stored(f"{weight}.quant_map")[places] * scales
        return values.reshape(-1, inputs)[:, columns]

    parts = [name for name in stored.tensors if name.startswith(f"{weight}.")]
    return PackedTensor((outputs, inputs), (weight, *parts), rows)
