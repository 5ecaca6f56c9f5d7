"""Reading and writing safetensors files, one piece of one tensor at a time.

The `safetensors` package opens, checks and slices the files. Around it a piece is cast and transposed block by
block, so that the host never holds more than the finished piece; and files are written one tensor after another,
where the package wants all of them in memory.

The format: 8 bytes of header length (little endian), a JSON header {name: {dtype, shape, data_offsets}}, then the
bytes of all tensors without gaps.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from thinkprm_jax.errors import UserError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# What the package says of a file that ends too early; whatever else it says, the file is corrupt.
_TOO_SHORT = ("header too small", "invalid header length")
_OTHER_LENGTH = "file not fully covered"
_BLOCK_BYTES = 4 * 2**20
_TRANSPOSE_ROWS = 16  # rows whose columns still share cache lines: 3x faster than a plain .T copy
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class TensorInfo:
    """One entry of a header. number: how many tensors lie before it in the file."""

    dtype: str
    shape: tuple[int, ...]
    number: int


class SafetensorsFile:
    """The tensors of one file; opening it reads the header only."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` naming the file where it is truncated or no safetensors file."""
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
            raise UserError(f"{path}: {_damage(str(error))}") from None

    def read(
        self, name: str, index: tuple[slice, ...], transposed: bool, dtype: np.dtype, pool: ThreadPoolExecutor
    ) -> np.ndarray:
        """A piece of a 1-D or 2-D tensor, in another dtype and orientation.

        Args:
          index: one slice per dimension of the result's orientation (so of the stored one's, reversed, where
            ``transposed``).
          transposed: the result is the transpose of what is stored (2-D only).
          dtype: of the result.
          pool: threads that share the blocks.
        Returns: a new C-contiguous array; beside it a block per thread is held.
        """
        info = self.tensors[name]
        stored_index = index[::-1] if transposed else index
        bounds = [part.indices(size)[:2] for part, size in zip(stored_index, info.shape, strict=True)]
        shape = [stop - start for start, stop in bounds]
        result = _aligned_empty(shape[::-1] if transposed else shape, dtype)
        if not result.size:
            return result
        # Bits are copied, not numbers: numpy is slow at strided copies of dtypes that are not its own.
        target = result.view(f"u{dtype.itemsize}")
        target = target.T if transposed else target
        (first_row, last_row), *columns = bounds
        row_bytes = DTYPES[info.dtype].itemsize * math.prod(info.shape[1:])
        block = max(_BLOCK_BYTES // row_bytes, 1)
        step = _TRANSPOSE_ROWS if transposed else block

        def copy(start: int) -> None:
            stop = min(start + block, last_row)
            # Opened for each block: pages of the file already copied do not count as memory of the process then.
            with safe_open(self.path, "numpy") as file:
                rows = file.get_slice(name)[(slice(start, stop), *(slice(*part) for part in columns))]
            rows = rows.astype(dtype, copy=False).view(target.dtype)
            for row in range(0, stop - start, step):
                part = rows[row : row + step]
                target[start - first_row + row : start - first_row + row + len(part)] = part

        starts = range(first_row, last_row, block)
        list(pool.map(copy, starts) if len(starts) > 1 else map(copy, starts))
        return result

    def first_bytes(self, name: str, count: int) -> bytes:
        """The beginning of a tensor as it is stored; all of it where it has no more."""
        shape = self.tensors[name].shape
        if math.prod(shape) == 0:
            return b""
        with safe_open(self.path, "numpy") as file:
            if not shape:
                return file.get_tensor(name).tobytes()[:count]
            rows = -(-count // math.prod(shape[1:]))  # of elements of at least one byte
            return file.get_slice(name)[: min(rows, shape[0])].tobytes()[:count]


def reading_threads() -> ThreadPoolExecutor:
    """The pool for :meth:`SafetensorsFile.read`."""
    return ThreadPoolExecutor(_THREADS)


def _damage(reason: str) -> str:
    """In words what is wrong with a file, from what the package says of it."""
    detail = reason.rpartition("header: ")[2]
    if _OTHER_LENGTH in detail:
        return "truncated, or longer than its header says"
    return f"{'truncated' if detail.startswith(_TOO_SHORT) else 'corrupt'}: {detail}"


def _aligned_empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array that JAX's CPU backend adopts as it is; it copies those not aligned to 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


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
