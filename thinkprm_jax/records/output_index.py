"""What is known of a file of rows, so that a run that goes on need not read it: `FILE.index`.

    {"format": "index/1", "rows": "verdict/2", "stamp": {...}, "inputs": {...}}     of what these are the rows
    {"rows": 812, "size": 4194609, "digest": "9f0c...", "counts": {...}, "made_by": [...]}    a block of them
    {"seal": [size, mtime, ctime]}                     the file as the run left it

The index is no source: what it says of a block holds where the bytes of the block have this digest. What has
another one, or is not in it, is read row by row, as if there were no index; then it is written anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import reading
from thinkprm_jax.records.files import LineFile
from thinkprm_jax.records.jsonl import write_line
from thinkprm_jax.storage import ObjectPath, location
from thinkprm_jax.storage.stores import describe

FORMAT = "index/1"
BLOCK_BYTES = 4 * 2**20  # at least; what is behind the last block is read row by row
LOOKED_AT = 4 * 2**30  # bytes that are looked at, all of a smaller file, where a run was killed
_SAMPLED = 16  # blocks of a file that nobody has touched since it was closed
MadeBy = tuple[str, str, str, int]  # model, name of a fingerprint, fingerprint, line


@dataclass(frozen=True)
class Block:
    """Rows that stand one behind the other.

    Attributes:
      rows, size: how many, and their bytes. digest: of the bytes.
      counts: what there is to count in them, together.
      made_by: fingerprints that no block before has.
    """

    rows: int
    size: int
    digest: str
    counts: Mapping[str, int]
    made_by: Sequence[Sequence[Any]]


@dataclass
class KnownRows:
    """The first rows of a file, which need not be read."""

    rows: int = 0
    size: int = 0


class OutputIndex:
    """The index of a file that one run writes.

    Args:
      output: the file. header: says of what its rows are, when that is needed; without ``inputs`` there is no
        index, and where the index has another header, it does not count.

    Attributes:
      known: what :meth:`resume` has found.
      counts, made_by: of those rows.
    """

    def __init__(self, output: Path, header: Callable[[], Mapping[str, Any]]) -> None:
        self._output, self.path = output, index_path(output)
        self._make_header = header
        self.known = KnownRows()
        self.counts: Counter[str] = Counter()
        self.made_by: list[MadeBy] = []
        self._begun, self._held = False, list[Mapping[str, Any]]()
        self._seal: list[int] | None = None
        self._kept = 0  # bytes of the index that hold
        self._file: LineFile | None = None
        self._begin_block()

    @functools.cached_property
    def _header(self) -> dict[str, Any] | None:
        made = self._make_header()
        return json.loads(write_line({"format": FORMAT, **made})) if made.get("inputs") is not None else None

    def resume(self) -> bool:
        """Finds out what is known; whether anything is. Changes nothing."""
        header, blocks, seal, ends = read_index(self.path)
        if header is None or self._header is None or not same_rows(header, self._header):
            return False
        whole = _stat(self._output)
        blocks = _within(blocks, 0 if whole is None else whole[0])
        self._seal = seal
        good = _first_good(self._output, blocks, is_sealed=seal is not None and seal == whole)
        for block in blocks[:good]:
            self.known.rows += block.rows
            self.known.size += block.size
            self.counts.update(block.counts)
            self.made_by += [(made_by, name, found, line) for made_by, name, found, line in block.made_by]
        self._kept = ends[good] if good else 0
        return good > 0

    def add(self, line: bytes, counts: Mapping[str, int], made_by: Iterable[MadeBy] = ()) -> None:
        """The next row, which is in the file."""
        self._rows += 1
        self._size += len(line)
        self._digest.update(line)
        self._counts.update(counts)
        self._made_by += made_by
        if self._size >= BLOCK_BYTES and self._header is not None:
            self._write(
                {
                    "rows": self._rows,
                    "size": self._size,
                    "digest": self._digest.hexdigest(),
                    "counts": dict(self._counts),
                    "made_by": self._made_by,
                }
            )
            self._begin_block()

    def _begin_block(self) -> None:
        self._rows = self._size = 0
        self._digest = hashlib.sha256()
        self._counts: Counter[str] = Counter()
        self._made_by: list[MadeBy] = []

    def begin(self) -> None:
        """The file is this run's: what was found while it was read is written from now on."""
        self._begun, held, self._held = True, self._held, []
        for entry in held:
            self._write(entry)

    def _write(self, entry: Mapping[str, Any]) -> None:
        if not self._begun:
            self._held.append(entry)
            return
        if self._file is None:
            self._file = LineFile(self.path)
            self._file.cut(self._kept)
            if not self._kept:
                self._file.append(write_line(self._header or {}))
        self._file.append(write_line(entry))

    def close(self) -> None:
        """After the file itself is closed. A file that is smaller than a block has no index."""
        whole = _stat(self._output)
        if whole is not None and (self._file is not None or self._kept) and whole != self._seal:
            self._write({"seal": whole})
        if self._file is not None:
            self._file.close()
            self._file = None


def index_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.index")


def read_index(
    path: Path,
) -> tuple[dict[str, Any] | None, list[Block], list[int] | None, list[int]]:
    """(header, blocks, seal where it comes last, bytes up to each block); no header where there is none that this
    version knows. What cannot be read ends it: a kill may leave half a line."""
    header, blocks, seal, ends, at = None, [], None, [0], 0
    try:
        with open(path, "rb") as file:
            for line in file:
                entry = json.loads(line) if line.endswith(b"\n") else None
                at += len(line)
                if not isinstance(entry, dict):
                    break
                if header is None:
                    if entry.get("format") != FORMAT:
                        break
                    header, ends = entry, [at]
                elif "seal" in entry:
                    seal = entry["seal"]
                else:
                    blocks.append(Block(**entry))
                    ends.append(at)
                    seal = None
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    return header, blocks, seal, ends


def same_rows(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two headers are of the same rows. When an input was looked at and where it lay do not matter."""
    return _essence(one) == _essence(other)


def _essence(header: Mapping[str, Any]) -> dict[str, Any]:
    inputs = header.get("inputs")
    return {**header, "inputs": inputs.get("digest") if isinstance(inputs, Mapping) else inputs}


def _stat(path: Path) -> list[int] | None:
    """Size and times, of which the second cannot be set back."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _within(blocks: Sequence[Block], size: int) -> list[Block]:
    """Those that a file of this size has whole."""
    kept, end = [], 0
    for block in blocks:
        end += block.size
        if end > size:
            break
        kept.append(block)
    return kept


def _first_good(output: Path, blocks: Sequence[Block], is_sealed: bool) -> int:
    """How many of the blocks, from the first, hold what they held when they were written.

    Args:
      is_sealed: the file is as its run left it when it was closed: some are looked at. Otherwise all are, of a
        file beyond LOOKED_AT as many as that, from its start to its end.
    """
    if not blocks:
        return 0
    everything = range(len(blocks))
    most = _SAMPLED if is_sealed else max(LOOKED_AT // max(block.size for block in blocks), _SAMPLED)
    step = -(-len(blocks) // most)
    chosen = sorted({*everything[::step], len(blocks) - 1})
    starts = [0]
    for block in blocks:
        starts.append(starts[-1] + block.size)
    with open(output, "rb", buffering=0) as file:

        def is_good(number: int) -> bool:
            file.seek(starts[number])
            return _digest_of(file, blocks[number].size) == blocks[number].digest

        if all(map(is_good, chosen)):
            return len(blocks)
        return next((number for number in everything if not is_good(number)), len(blocks))


def _digest_of(file: Any, size: int) -> str:
    made = hashlib.sha256()
    while size and (part := file.read(min(size, 2**20))):
        made.update(part)
        size -= len(part)
    return made.hexdigest()


def file_facts(path: str) -> list[Any]:
    """What tells whether a file was written since, without reading it: size and times, or what a store says."""
    place = location(path)
    if isinstance(place, ObjectPath):
        found = describe(path)
        return [] if found is None else [found.size, found.version]
    return _stat(place) or []


def file_digest(path: str) -> str:
    """Of the whole content of a file; of an object, which cannot be changed in part, its version."""
    place = location(path)
    if isinstance(place, ObjectPath):
        return " ".join(map(str, file_facts(path)))
    with reading(path), open(place, "rb", buffering=0) as file:
        return _digest_of(file, os.fstat(file.fileno()).st_size)


def read_header(output: Path) -> dict[str, Any]:
    """Of what the rows of a file are, as its index says it; {} where there is none."""
    try:
        with open(index_path(output), "rb") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) and header.get("format") == FORMAT else {}
