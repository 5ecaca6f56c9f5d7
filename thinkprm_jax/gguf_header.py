"""The header of a GGUF file: its metadata, and where its tensors lie.

Read here and not by the package ``gguf``, whose reader makes several arrays of every string (a vocabulary with
its merges has 300,000) and takes every length in the file for true. A damaged file is one line here, and files
that are not quantised need no further package.

The format: ``GGUF``, a version, the numbers of tensors and of metadata; then key, kind and value of each piece of
metadata; then name, sizes, kind and place of each tensor; then, from a multiple of the alignment on, the tensors.
Everything is little-endian.
"""

from __future__ import annotations

import functools
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinkprm_jax.errors import UserError
from thinkprm_jax.user_files import check_whole_file

SUFFIX = ".gguf"
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_OTHER_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "pytorch_model*")
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Kinds of a value, by number, in the notation of struct and numpy.
_NUMBERS = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
# What no model reaches: a number that is damaged ends here, and not in the memory of the machine.
_MOST_KEYS = 2**16
_MOST_TENSORS = 2**18
_MOST_ELEMENTS = 2**22  # of an array
_LONGEST_TEXT = 2**24  # bytes
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class GgufTensor:
    """One entry of the table of tensors."""

    shape: tuple[int, ...]  # rows first, as in numpy; the file has it the other way round
    kind: int  # ggml's number of the way in which its numbers are stored
    offset: int  # from the beginning of the file, bytes


@dataclass(frozen=True)
class GgufHeader:
    """What one file says before its tensors."""

    path: Path
    size: int  # of the whole file, bytes
    metadata: Mapping[str, Any]  # numbers, texts, and lists of them
    tensors: Mapping[str, GgufTensor]


def gguf_of(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the only one of a folder without other weights. Of a model in
    several parts it is the first one. None: the path means something else.

    Raises:
      UserError: the folder holds several.
    """
    if path.suffix == SUFFIX and path.is_file():
        return path
    if not path.is_dir() or any(any(path.glob(pattern)) for pattern in _OTHER_WEIGHTS):
        return None
    parts = {file: _PART.fullmatch(file.name) for file in sorted(path.glob(f"*{SUFFIX}"))}
    found = [file for file, part in parts.items() if part is None or int(part["number"]) == 1]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UserError(f"{path}: holds several models, name one of these files: {names}")
    return next(iter(found or parts), None)


def parts_of(path: Path) -> list[Path]:
    """The files of a model, of which ``path`` is the first (``...-00001-of-00003.gguf``) or the only one.

    Raises:
      UserError: it is another one than the first, or a file is missing.
    """
    part = _PART.fullmatch(path.name)
    if part is None:
        return [path]
    count = int(part["count"])
    names = [
        f"{part['stem']}-{number:05d}-of-{part['count']}{SUFFIX}" for number in range(1, min(count, 1000) + 1)
    ]
    if int(part["number"]) != 1:
        raise UserError(f"{path}: is one of several parts; name the first, {names[0] if names else 'part 1'}")
    absent = [name for name in names if not (path.parent / name).is_file()]
    if absent:
        raise UserError(f"{path}: {len(absent)} of its {count} parts are not there: {', '.join(absent[:3])}")
    return [path.parent / name for name in names]


def read_header(path: Path) -> GgufHeader:
    """What a file says before its tensors; a file that was read and has not changed is not read again.

    Raises:
      UserError: one line that says what is wrong with the file.
    """
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


@functools.lru_cache(maxsize=2)
def _read(path: Path, _changed: int, size: int) -> GgufHeader:
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] != _MAGIC:
            check_whole_file(path)
            raise UserError(f"{path}: is no GGUF file (it begins with {start[:4]!r}, not with {_MAGIC!r})")
        if len(start) < 8:
            raise UserError(f"{path}: truncated: it has {size} bytes")
        _check_version(path, int.from_bytes(start[4:], "little"))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(data, len(start))
            try:
                return _parse(path, cursor, size)
            except (struct.error, EOFError):
                raise UserError(f"{path}: truncated: it ends within its header, after {size} bytes") from None
            except ValueError as error:
                raise UserError(f"{path}: corrupt: {error}") from None


def _check_version(path: Path, version: int) -> None:
    if version in _VERSIONS:
        return
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise UserError(f"{path}: is big-endian; convert it for a little-endian machine (gguf-convert-endian)")
    have = " and ".join(map(str, _VERSIONS))
    raise UserError(f"{path}: GGUF version {version} is not supported (we have: {have}); convert the model again")


def _parse(path: Path, cursor: _Cursor, size: int) -> GgufHeader:
    tensor_count, key_count = cursor.numbers("<QQ")
    if tensor_count > _MOST_TENSORS or key_count > _MOST_KEYS:
        raise ValueError(f"its header announces {tensor_count} tensors and {key_count} keys")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.text()
        if key in metadata:
            raise ValueError(f"the key {key} stands twice")
        metadata[key] = cursor.value(*cursor.numbers("<I"))
    found: dict[str, GgufTensor] = {}
    for _ in range(tensor_count):
        name = cursor.text()
        if name in found:
            raise ValueError(f"the tensor {name} stands twice")
        (dimensions,) = cursor.numbers("<I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        sizes = cursor.numbers(f"<{dimensions}Q")
        kind, offset = cursor.numbers("<IQ")
        found[name] = GgufTensor(sizes[::-1], kind, offset)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment is {alignment!r}")
    begin = -(-cursor.position // alignment) * alignment
    tensors = {
        name: GgufTensor(tensor.shape, tensor.kind, begin + tensor.offset) for name, tensor in found.items()
    }
    return GgufHeader(path, size, metadata, tensors)


class _Cursor:
    """Reads one value after another."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self._data = data
        self.position = position

    def numbers(self, form: str) -> tuple[int, ...]:
        """Of a struct format. Raises `struct.error` behind the end."""
        found = struct.unpack_from(form, self._data, self.position)
        self.position += struct.calcsize(form)
        return found

    def text(self) -> str:
        (length,) = self.numbers("<Q")
        if length > _LONGEST_TEXT:
            raise ValueError(f"a text of {length} bytes at {self.position}")
        return self._bytes(length).decode("utf-8")

    def value(self, kind: int) -> Any:
        """Raises `ValueError` for what no value can be, `EOFError` behind the end."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _NUMBERS:
            raise ValueError(f"a value of the unknown kind {kind} at {self.position}")
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self._bytes(dtype.itemsize), dtype)[0].item()

    def _array(self) -> list[Any]:
        kind, count = self.numbers("<IQ")
        if count > _MOST_ELEMENTS:
            raise ValueError(f"an array of {count} elements at {self.position}")
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        if kind not in _NUMBERS:  # arrays of arrays, too: no model has them
            raise ValueError(f"an array of the unknown kind {kind} at {self.position}")
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self._bytes(dtype.itemsize * count), dtype).tolist()

    def _bytes(self, count: int) -> bytes:
        found = self._data[self.position : self.position + count]
        if len(found) < count:
            raise EOFError
        self.position += count
        return found
