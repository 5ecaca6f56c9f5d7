"""The tensors of a GGUF file under the names of Hugging Face's checkpoints.

What is not quantised is read with numpy alone. Quantised blocks become floats through the package ``gguf``, which
is llama.cpp's own: a parameter is read and made a block of rows at a time.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from thinkprm_jax.checkpoint.pieces import TensorInfo, read_piece
from thinkprm_jax.errors import UserError
from thinkprm_jax.gguf_header import GgufHeader, GgufTensor, parts_of, read_header

# Name in the file -> name in a Hugging Face checkpoint. {} is the layer's number.
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"  # what scales the rotation; config.json says it in numbers
_NUMBER = re.compile(r"(?<=blk\.)\d+(?=\.)")
_PLAIN: dict[int, np.dtype] = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float16),
    28: np.dtype(np.float64),
    30: np.dtype(ml_dtypes.bfloat16),
}
_UNPACKED_AT_ONCE = 2**16  # numbers: enough for numpy to be quick, few enough for its copies to stay in a cache


@dataclass(frozen=True)
class _Kind:
    """How numbers are stored: ``block`` of them in ``size`` bytes; ``floats`` makes [n, size] bytes [n, block]."""

    name: str
    block: int
    size: int
    floats: Callable[[np.ndarray], np.ndarray]
    itemsize: int  # of a float


class GgufTensors:
    """A :class:`TensorSource`; opening it reads headers only.

    The rows of Llama's query and key maps are given in the order of Hugging Face: the file has them as llama.cpp
    rotates them, neighbours together.
    """

    def __init__(self, path: Path) -> None:
        """``path``: the file, or the first one of several.

        Raises:
          UserError: a file is damaged, or holds numbers in a form that nothing here unpacks.
        """
        self.headers = [read_header(part) for part in parts_of(path)]
        if self.headers[0].metadata.get("split.count", 1) not in (0, len(self.headers)):
            count = self.headers[0].metadata["split.count"]
            raise UserError(f"{path}: is one of {count} parts, and its name does not say where the others are")
        self._kinds: dict[int, _Kind] = {}
        self._found: dict[str, tuple[GgufHeader, GgufTensor, _Kind]] = {}
        for header in self.headers:
            for name, tensor in header.tensors.items():
                if name == ROPE_FACTORS:
                    continue
                kind = self._kind(path, name, tensor.kind)
                _check_place(header, name, tensor, kind)
                self._found[hugging_face_name(name)] = header, tensor, kind
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo("F32", tensor.shape, number)
            for number, (name, (_, tensor, _)) in enumerate(self._found.items())
        }
        metadata = self.headers[0].metadata
        self._heads: dict[str, Any] = {}
        if metadata.get("general.architecture") == "llama":
            heads = metadata.get("llama.attention.head_count")
            self._heads = {"q_proj": heads, "k_proj": metadata.get("llama.attention.head_count_kv", heads)}

    def read(
        self, name: str, index: tuple[slice, ...], transposed: bool, dtype: np.dtype, pool: ThreadPoolExecutor
    ) -> np.ndarray:
        itemsize = self._found[name][2].itemsize
        rows = functools.partial(self._rows, name, self._row_order(name))
        shape, label = self.tensors[name].shape, f"{self.place(name)[0]}: {name}"
        return read_piece(shape, index, transposed, dtype, pool, rows, itemsize, label)

    def place(self, name: str) -> tuple[str, int]:
        header, tensor, _ = self._found[name]
        return header.path.name, tensor.offset

    def fingerprint_parts(self, count: int) -> Iterator[bytes]:
        """What tells models apart: names, kinds, shapes and the first ``count`` bytes of every tensor."""
        for name, (header, tensor, kind) in sorted(self._found.items()):
            yield f"{name} {kind.name} {tensor.shape}\n".encode()
            size = math.prod(tensor.shape) // kind.block * kind.size
            yield _bytes(header.path, tensor.offset, min(count, size)).tobytes()

    def _rows(self, name: str, order: np.ndarray | None, part: slice, columns: tuple[slice, ...]) -> np.ndarray:
        """Floats of ``part`` in Hugging Face's order, of these columns."""
        header, tensor, kind = self._found[name]
        row_bytes = tensor.shape[-1] // kind.block * kind.size
        if len(tensor.shape) == 1:  # one row, whose columns are the pieces
            whole = _bytes(header.path, tensor.offset, row_bytes)[None]
            values = _floats(whole, kind, slice(0, tensor.shape[0]))[0]
            return values[part if order is None else order[part]]
        wanted = np.arange(part.start, part.stop) if order is None else order[part]
        first, count = int(wanted.min()), int(wanted.max()) + 1 - int(wanted.min())
        stored = _bytes(header.path, tensor.offset + first * row_bytes, count * row_bytes).reshape(
            count, row_bytes
        )
        if order is not None:
            stored = stored[wanted - first]
        return _floats(stored, kind, *columns)

    def _kind(self, path: Path, name: str, number: int) -> _Kind:
        if number not in self._kinds:
            self._kinds[number] = _find_kind(path, name, number)
        return self._kinds[number]

    def _row_order(self, name: str) -> np.ndarray | None:
        """Where each row of a tensor of Hugging Face lies in the file; None: in the same place."""
        module = name.rpartition(".self_attn.")[2].partition(".")[0]
        heads = self._heads.get(module)
        if heads is None:
            return None
        size = self.tensors[name].shape[0]
        if not isinstance(heads, int) or heads < 1 or size % (2 * heads):
            raise UserError(f"{self.headers[0].path}: {size} rows of {name} are not {heads!r} heads of pairs")
        return np.arange(size).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def hugging_face_name(name: str) -> str:
    """The name in a Hugging Face checkpoint; one that we do not know stays as it is, and fits no model."""
    module, _, kind = name.rpartition(".")
    layer = _NUMBER.search(module)
    theirs = _NAMES.get(_NUMBER.sub("{}", module, count=1))
    if theirs is None:
        return name
    return f"{theirs.format(layer.group()) if layer else theirs}.{kind}"


def read_rope_factors(path: Path) -> np.ndarray | None:
    """Float32 [head width / 2] by which each frequency of the rotation is divided; None where none is."""
    header = read_header(parts_of(path)[0])
    tensor = header.tensors.get(ROPE_FACTORS)
    if tensor is None:
        return None
    kind = _find_kind(path, ROPE_FACTORS, tensor.kind)
    _check_place(header, ROPE_FACTORS, tensor, kind)
    size = math.prod(tensor.shape)
    return _floats(_bytes(path, tensor.offset, size // kind.block * kind.size)[None], kind, slice(0, size))[0]


def _find_kind(path: Path, name: str, number: int) -> _Kind:
    """Raises `UserError` where nothing here unpacks it."""
    if number in _PLAIN:
        dtype = _PLAIN[number]
        return _Kind(dtype.name, 1, dtype.itemsize, lambda data: data.view(dtype), dtype.itemsize)
    try:
        import gguf
    except ImportError:
        raise UserError(
            f"{path}: {name} is quantised, and what unpacks it is not installed: pip install 'thinkprm-jax[gguf]'"
        ) from None
    try:
        kind = gguf.GGMLQuantizationType(number)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        gguf.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        said = next((kind.name for kind in gguf.GGMLQuantizationType if kind == number), f"of kind {number}")
        raise UserError(
            f"{path}: {name} is {said}, which the package gguf does not unpack; take another file of the model, "
            "such as Q8_0 or Q4_K_M"
        ) from None

    def floats(data: np.ndarray) -> np.ndarray:
        result = np.empty((len(data), block), np.float32)
        step = _UNPACKED_AT_ONCE // block
        with np.errstate(all="ignore"):  # scales that are not finite are told by whoever reads the numbers
            for start in range(0, len(data), step):
                part = data[start : start + step]
                result[start : start + step] = gguf.dequantize(part.reshape(1, -1), kind).reshape(len(part), block)
        return result

    return _Kind(kind.name, block, size, floats, 4)


def _check_place(header: GgufHeader, name: str, tensor: GgufTensor, kind: _Kind) -> None:
    if tensor.shape[-1] % kind.block:
        raise UserError(
            f"{header.path}: corrupt: {name} has rows of {tensor.shape[-1]}, no multiple of {kind.block}"
        )
    end = tensor.offset + math.prod(tensor.shape) // kind.block * kind.size
    if end > header.size:
        raise UserError(f"{header.path}: truncated: {name} ends at {end:,} of {header.size:,} bytes")


def _bytes(path: Path, offset: int, count: int) -> np.ndarray:
    """uint8 [count]."""
    found = np.fromfile(path, np.uint8, count, offset=offset)
    if len(found) < count:
        raise UserError(f"{path}: truncated while it was read")
    return found


def _floats(stored: np.ndarray, kind: _Kind, columns: slice) -> np.ndarray:
    """uint8 [rows, bytes of a row] -> [rows, columns]; only blocks that hold some of the columns are unpacked."""
    first, last = columns.start // kind.block, -(-columns.stop // kind.block)
    blocks = np.ascontiguousarray(stored[:, first * kind.size : last * kind.size]).reshape(-1, kind.size)
    values = kind.floats(blocks).reshape(len(stored), (last - first) * kind.block)
    return values[:, columns.start - first * kind.block : columns.stop - first * kind.block]
