"""Reading and writing safetensors files, one piece of one tensor at a time.

The `safetensors` package opens, checks and slices the files. Files are written one tensor after another, where the
package wants all of them in memory.

The format: 8 bytes of header length (little endian), a JSON header {name: {dtype, shape, data_offsets}}, then the
bytes of all tensors without gaps.
"""

from __future__ import annotations

import functools
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from thinkprm_jax.checkpoint.pieces import TensorInfo, read_piece
from thinkprm_jax.errors import UserError
from thinkprm_jax.user_files import check_whole_file

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Packed weights may have these; by themselves they are no weights, their scales are elsewhere.
FP8: dict[str, np.dtype] = {
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# What the package says of a file that ends too early; whatever else it says, the file is corrupt.
_TOO_SHORT = ("header too small", "invalid header length")
_OTHER_LENGTH = "file not fully covered"


class SafetensorsFile:
    """The tensors of one file; opening it reads the header only."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` naming the file where it is truncated, no safetensors file, or git-lfs's pointer."""
        self.path = path
        try:
            with safe_open(path, "numpy") as file:
                slices = {name: file.get_slice(name) for name in file.offset_keys()}
                self.tensors = {
                    name: TensorInfo(found.get_dtype(), tuple(found.get_shape()), number)
                    for number, (name, found) in enumerate(slices.items())
                }
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
        except SafetensorError as error:
            check_whole_file(path)
            raise UserError(f"{path}: {_damage(str(error))}") from None

    def read(
        self, name: str, index: tuple[slice, ...], transposed: bool, dtype: np.dtype, pool: ThreadPoolExecutor
    ) -> np.ndarray:
        """As :meth:`TensorSource.read`; of a tensor whose dtype is one of `DTYPES`."""
        info = self.tensors[name]

        def rows(part: slice, columns: tuple[slice, ...]) -> np.ndarray:
            return self.stored(name, (part, *columns))

        label, itemsize = f"{self.path}: {name}", DTYPES[info.dtype].itemsize
        return read_piece(info.shape, index, transposed, dtype, pool, rows, itemsize, label)

    def stored(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A piece of a tensor as it is stored."""
        # Opened for each piece: pages of the file already copied do not count as memory of the process then.
        info = self.tensors[name]
        if info.dtype in FP8:  # numpy has no such dtypes, and the package looks for them there
            begin, _ = self._offsets[name]
            return np.array(np.memmap(self.path, FP8[info.dtype], "r", begin, info.shape)[index])
        with safe_open(self.path, "numpy") as file:
            return file.get_slice(name)[index] if info.shape else file.get_tensor(name)

    @functools.cached_property
    def _offsets(self) -> dict[str, tuple[int, int]]:
        """Where the bytes of each tensor begin and end in the file; its header has been checked."""
        with self.path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        return {name: tuple(8 + length + at for at in header[name]["data_offsets"]) for name in self.tensors}

    def first_bytes(self, name: str, count: int) -> bytes:
        """The beginning of a tensor as it is stored; all of it where it has no more."""
        shape = self.tensors[name].shape
        if math.prod(shape) == 0:
            return b""
        rows = -(-count // math.prod(shape[1:]))  # of elements of at least one byte
        return self.stored(name, (slice(0, min(rows, shape[0])),) if shape else ()).tobytes()[:count]


def _damage(reason: str) -> str:
    """In words what is wrong with a file, from what the package says of it."""
    detail = reason.rpartition("header: ")[2]
    if _OTHER_LENGTH in detail:
        return "truncated, or longer than its header says"
    return f"{'truncated' if detail.startswith(_TOO_SHORT) else 'corrupt'}: {detail}"


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor whose numbers are fetched only when their turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fetch: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(path: Path, tensors: Iterable[TensorToWrite], metadata: Mapping[str, str]) -> None:
    """Writes one file, holding one tensor at a time."""
    tensors = list(tensors)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors then start at multiples of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            array = np.ascontiguousarray(tensor.fetch(), tensor.dtype)
            if array.shape != tensor.shape:
                raise ValueError(f"{tensor.name}: {array.shape} came, {tensor.shape} was announced")
            file.write(array.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
