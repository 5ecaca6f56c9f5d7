"""Folders whose weights are packed: in integers with scales, or in 8-bit floats.

Such a format says which stored tensors make up which weight, and how some of its rows become floats. Nothing else
of the package knows of it: a new format is a class like :class:`WeightFormat` and a line in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from thinkprm_jax.checkpoint.pieces import TensorInfo, read_piece
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.errors import UserError

# Scales of activations and caches: for products in 8 bits, which ours are not.
_ASIDE = ("input_scale", "input_zero_point", "activation_scale", "input_scale_ub", "k_scale", "v_scale", "q_scale")
WAY_OUT = "take the model's plain weights, or a GGUF file of it"


@dataclass(frozen=True)
class PackedTensor:
    """A weight [out, in] that is stored in parts.

    Attributes:
      shape: of what ``rows`` gives.
      parts: the names of what it is made of; they are no tensors of the model.
      rows: (rows, columns) -> float32.
      transposed: ``rows`` gives [in, out].
    """

    shape: tuple[int, int]
    parts: tuple[str, ...]
    rows: Callable[[slice, slice], np.ndarray]
    transposed: bool = False


class WeightFormat(Protocol):
    """A way to pack weights."""

    def __init__(self, settings: Mapping[str, Any], where: str) -> None:
        """Args: ``quantization_config`` of config.json, and its place for messages.

        Raises:
          UserError: a variant that we do not have.
        """
        ...

    def find(self, stored: StoredTensors) -> Mapping[str, PackedTensor]:
        """The packed weights of a folder, by the names that they have in an unpacked one.

        Raises:
          UserError: a part is missing, or of a shape or a dtype that cannot be.
        """
        ...


class UnpackedTensors:
    """A :class:`TensorSource` of a packed folder. What is not packed (norms, embeddings) is read as it is."""

    def __init__(self, stored: StoredTensors, packed: Mapping[str, PackedTensor]) -> None:
        self._stored, self._packed = stored, packed
        parts = {part for tensor in packed.values() for part in tensor.parts}
        self.tensors: Mapping[str, TensorInfo] = {
            name: info
            for name, info in stored.tensors.items()
            if name not in parts and name not in packed and name.rpartition(".")[2] not in _ASIDE
        } | {
            name: TensorInfo("F32", tensor.shape[:: -1 if tensor.transposed else 1], 0)
            for name, tensor in packed.items()
        }

    def read(
        self, name: str, index: tuple[slice, ...], transposed: bool, dtype: np.dtype, pool: ThreadPoolExecutor
    ) -> np.ndarray:
        tensor = self._packed.get(name)
        if tensor is None:
            return self._stored.read(name, index, transposed, dtype, pool)

        def rows(part: slice, columns: tuple[slice, ...]) -> np.ndarray:
            return tensor.rows(part, *columns)

        return read_piece(tensor.shape, index, transposed != tensor.transposed, dtype, pool, rows, 4)

    def place(self, name: str) -> tuple[str, int]:
        tensor = self._packed.get(name)
        return self._stored.place(name if tensor is None else tensor.parts[0])


def present(stored: StoredTensors, module: str, *names: str) -> tuple[str, ...]:
    """Those of a module's tensors that the folder has."""
    return tuple(f"{module}.{name}" for name in names if f"{module}.{name}" in stored.tensors)


def require(
    stored: StoredTensors, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...] | None = None
) -> None:
    """Raises `UserError` where a part is not there, or not of one of the dtypes, or not of the shape."""
    info = stored.tensors.get(name)
    if info is None:
        raise UserError(f"{stored.folder}: {name} is missing: its packed weight cannot be read")
    if info.dtype not in dtypes:
        raise UserError(f"{stored.folder}: {name} is {info.dtype}, not {' or '.join(dtypes)}")
    if shape is not None and info.shape != shape:
        raise UserError(f"{stored.folder}: {name} is {list(info.shape)} instead of {list(shape)}")


def read_groups(stored: StoredTensors, name: str, part: slice, count: int) -> np.ndarray:
    """The groups of some inputs, as the folder lists them; raises `UserError` for one beyond ``count``."""
    found = stored.stored(name, part)
    if found.size and (found.min() < 0 or found.max() >= count):
        raise UserError(f"{stored.folder}: {name} names groups beyond its {count}")
    return found


def unpack_integers(words: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """uint8 of int32 words [rows, columns], the lowest bits first: 32 / bits times as many along ``axis``."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    values = ((words.view(np.uint32)[..., None] >> shifts) & np.uint32(2**bits - 1)).astype(np.uint8)
    return values.reshape(len(words), -1) if axis else values.swapaxes(1, 2).reshape(-1, words.shape[1])


def around(part: slice, unit: int) -> tuple[slice, slice]:
    """(the units of ``unit`` numbers that hold ``part``, where ``part`` is in them)."""
    first = part.start // unit
    return slice(first, -(-part.stop // unit)), slice(part.start - first * unit, part.stop - first * unit)
