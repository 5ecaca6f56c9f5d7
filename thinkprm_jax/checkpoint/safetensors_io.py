"""Reading and writing safetensors files, one piece of one tensor at a time.

The format: 8 bytes of header length (little endian), a JSON header {name: {dtype, shape, data_offsets}}, then
the bytes of all tensors without gaps. The `safetensors` package reads a whole tensor before it can be sliced,
cast or transposed; here all three happen block by block, so that the host never holds more than the finished
piece, and a broken file is refused with its name before a byte of it is used.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from thinkprm_jax.errors import UserError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER = 100_000_000  # the limit of the format's own library
_BLOCK_BYTES = 4 * 2**20
_TRANSPOSE_ROWS = 16  # rows whose columns still share cache lines: 3x faster than a plain .T copy
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class TensorInfo:
    """One entry of a header: ``start`` is the position of the first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


class SafetensorsFile:
    """The tensors of one file; opening it reads the header only."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` naming the file where it is truncated or no safetensors file."""
        self.path = path
        try:
            with path.open("rb") as file:
                self.tensors = _read_header(file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        except _Corrupt as error:
            raise UserError(f"{path}: {error}") from None

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
        # Bits are copied, not numbers: numpy is slow at strided copies of dtypes that are not its own.
        target = result.view(f"u{dtype.itemsize}")
        target = target.T if transposed else target
        first_row, last_row = bounds[0]
        columns = slice(*bounds[1]) if len(bounds) == 2 else ...
        row_bytes = info.nbytes // max(info.shape[0], 1)
        block = max(_BLOCK_BYTES // max(row_bytes, 1), 1)
        step = _TRANSPOSE_ROWS if transposed else block

        with self.path.open("rb") as file:

            def copy(start: int) -> None:
                stop = min(start + block, last_row)
                rows = _map_rows(file.fileno(), info, start, stop)[:, columns]
                rows = rows.astype(dtype, copy=False).view(target.dtype).reshape(stop - start, *shape[1:])
                for row in range(0, stop - start, step):
                    part = rows[row : row + step]
                    target[start - first_row + row : start - first_row + row + len(part)] = part

            starts = range(first_row, last_row, block)
            list(pool.map(copy, starts) if len(starts) > 1 else map(copy, starts))
        return result


def reading_threads() -> ThreadPoolExecutor:
    """The pool for :meth:`SafetensorsFile.read`."""
    return ThreadPoolExecutor(_THREADS)


def _aligned_empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array that JAX's CPU backend adopts as it is; it copies those not aligned to 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _map_rows(descriptor: int, info: TensorInfo, start: int, stop: int) -> np.ndarray:
    """Rows start..stop of a tensor as [rows, columns] over a mapping that dies with the array.

    A mapping for each block, so that pages of the file already copied do not count as memory of the process;
    and a mapping rather than a read, so that columns nobody asks for are not fetched.
    """
    dtype = DTYPES[info.dtype]
    row_bytes = info.nbytes // max(info.shape[0], 1)
    begin = info.start + start * row_bytes
    base = begin - begin % mmap.ALLOCATIONGRANULARITY
    length = begin - base + (stop - start) * row_bytes
    if stop <= start or row_bytes == 0:
        return np.empty((stop - start, row_bytes // dtype.itemsize), dtype)
    mapped = mmap.mmap(descriptor, length, access=mmap.ACCESS_READ, offset=base)
    flat = np.frombuffer(mapped, dtype, (stop - start) * row_bytes // dtype.itemsize, begin - base)
    return flat.reshape(stop - start, -1)


class _Corrupt(Exception):
    """What is wrong with a file; the reader adds its name."""


def _read_header(file: Any, size: int) -> dict[str, TensorInfo]:
    """The header's entries, checked: they must tile the rest of the file exactly."""
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _Corrupt(f"truncated: {size} bytes are too few for a safetensors file")
    (length,) = struct.unpack("<Q", prefix)
    if length > _MAX_HEADER:
        raise _Corrupt("corrupt: no safetensors header")
    if length > size - 8:
        raise _Corrupt(f"truncated: the header needs {length + 8} bytes, the file has {size}")
    try:
        header = json.loads(file.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = {name: _read_entry(entry, 8 + length) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _Corrupt("corrupt: the safetensors header cannot be read") from None
    end = 8 + length
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        known = DTYPES.get(info.dtype)
        if info.start != end or (known and info.nbytes != math.prod(info.shape) * known.itemsize):
            raise _Corrupt(f"corrupt: the header's offsets of {name} do not fit")
        end += info.nbytes
    if end > size:
        raise _Corrupt(f"truncated: its tensors need {end} bytes, the file has {size}")
    if end < size:
        raise _Corrupt(f"corrupt: {size - end} bytes follow the last tensor")
    return tensors


def _read_entry(entry: Mapping[str, Any], data: int) -> TensorInfo:
    start, stop = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    if start < 0 or stop < start or any(size < 0 for size in shape):
        raise ValueError("negative size")
    return TensorInfo(str(entry["dtype"]), shape, data + start, stop - start)


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
