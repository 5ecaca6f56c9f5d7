"""A piece of a tensor, in the dtype and the orientation that are asked for, made block by block.

However a file keeps its numbers (plain, packed in integers, in blocks with scales), this is how they become a
parameter: a reader gives some rows as floats, and here they are cast, turned and put in place. Beside the finished
piece the host holds one block a thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from thinkprm_jax.errors import UserError

_BLOCK_BYTES = 4 * 2**20
_TRANSPOSE_ROWS = 16  # rows whose columns still share cache lines: 3x faster than a plain .T copy
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a file. number: how many tensors lie before it in the file."""

    dtype: str
    shape: tuple[int, ...]
    number: int


class TensorSource(Protocol):
    """Tensors by the names of Hugging Face's checkpoints, as floats, however they are stored."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What there is. The dtype of what is packed is that of its unpacked numbers."""
        ...

    def read(
        self, name: str, index: tuple[slice, ...], transposed: bool, dtype: np.dtype, pool: ThreadPoolExecutor
    ) -> np.ndarray:
        """A piece of a 1-D or 2-D tensor, in another dtype and orientation.

        Args:
          index: one slice per dimension of the result's orientation (so of the stored one's, reversed, where
            ``transposed``).
          transposed: the result is the transpose of what the name stands for (2-D only).
          dtype: of the result.
          pool: threads that share the blocks.
        Returns: a new C-contiguous array.
        """
        ...

    def place(self, name: str) -> tuple[str, int]:
        """Sorts tensors as they lie in their files: disks and network file systems read ahead."""
        ...


def reading_threads() -> ThreadPoolExecutor:
    """The pool for :meth:`TensorSource.read`."""
    return ThreadPoolExecutor(_THREADS)


def read_piece(
    shape: Sequence[int],
    index: tuple[slice, ...],
    transposed: bool,
    dtype: np.dtype,
    pool: ThreadPoolExecutor,
    rows: Callable[[slice, tuple[slice, ...]], np.ndarray],
    itemsize: int,
    label: str = "a tensor",
) -> np.ndarray:
    """A piece of what ``rows`` reads; arguments and result as of :meth:`TensorSource.read`.

    Args:
      shape: of the whole, in the orientation of ``rows``.
      rows: (rows, the other dimensions) -> that piece, in any float dtype.
      itemsize: bytes of a number as ``rows`` gives it.
      label: what it is called in an error.
    Raises:
      UserError: a number is not finite, or is not in ``dtype``. That costs two looks at a block that is in the
        processor's cache at that moment.
    """
    stored_index = index[::-1] if transposed else index
    bounds = [part.indices(size)[:2] for part, size in zip(stored_index, shape, strict=True)]
    sizes = [stop - start for start, stop in bounds]
    result = _aligned_empty(sizes[::-1] if transposed else sizes, dtype)
    if not result.size:
        return result
    # Bits are copied, not numbers: numpy is slow at strided copies of dtypes that are not its own.
    target = result.view(f"u{dtype.itemsize}")
    target = target.T if transposed else target
    (first_row, last_row), *columns = bounds
    block = max(_BLOCK_BYTES // (itemsize * math.prod(shape[1:])), 1)
    step = _TRANSPOSE_ROWS if transposed else block

    def copy(start: int) -> None:
        stop = min(start + block, last_row)
        found = rows(slice(start, stop), tuple(slice(*part) for part in columns))
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told
            bits = found.astype(dtype, copy=False).view(target.dtype)
        if not _all_finite(bits, dtype):
            raise UserError(f"{label} holds numbers that are not finite, or that {dtype.name} cannot hold")
        for row in range(0, stop - start, step):
            part = bits[row : row + step]
            target[start - first_row + row : start - first_row + row + len(part)] = part

    starts = range(first_row, last_row, block)
    list(pool.map(copy, starts) if len(starts) > 1 else map(copy, starts))
    return result


def _all_finite(bits: np.ndarray, dtype: np.dtype) -> bool:
    """bits: the patterns of numbers of ``dtype``, as unsigned integers.

    In order as signed integers, the infinity and the NaNs stand above all positive numbers; as unsigned ones those
    with a sign stand above all. Two maxima of integers: numpy knows no fast test of bfloat16.
    """
    exponent = np.array(np.inf, dtype).view(bits.dtype)
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    signed = bits.view(f"i{bits.itemsize}")
    return not bits.size or bool(signed.max() < exponent.astype(signed.dtype) and bits.max() < (exponent | sign))


def _aligned_empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array that JAX's CPU backend adopts as it is; it copies those not aligned to 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
