"""The rows of an input as blocks of Ray Data, which are read where they are wanted."""

from __future__ import annotations

import functools
import os
import pickle
import stat
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.storage import is_local

if TYPE_CHECKING:
    import pyarrow
    import ray
    from ray.data import Datasource


class InputBlocks:
    """Rows of an input, cut into blocks.

    Args:
      numbers: of the rows. size: rows of a block.
    Raises:
      UserError: the input is a pipe, which this process alone can read.
    """

    def __init__(self, rows: SolutionFile, numbers: Sequence[int], size: int) -> None:
        source, known, files = str(rows.source.source), rows.identity(), rows.source.files
        self._here = files is not None and all(map(is_local, files))
        if files is not None and self._here:  # a worker has another working folder
            if any(stat.S_ISFIFO(os.stat(file).st_mode) for file in files):
                raise UserError(f"{source}: is a pipe, which no other process can read: give a file")
            source = os.path.abspath(source)
            if known is not None:
                known["source"] = {**known["source"], "files": [os.path.abspath(file) for file in files]}
        self._arguments = source, rows.part, rows.split
        self._known, self._numbers, self._size = known, numbers, size

    def __len__(self) -> int:
        return -(-len(self._numbers) // self._size)

    @property
    def place(self) -> dict[str, str] | None:
        """Labels of the machine that reads: files of this one are read on it."""
        import ray

        return {"ray.io/node-id": ray.get_runtime_context().get_node_id()} if self._here else None

    def source(self) -> Datasource:
        """Of tables with columns ``number`` and ``row``, as of :func:`pickled_table`; a task a block."""
        import ray
        from ray.data import Datasource, ReadTask
        from ray.data.block import BlockMetadata

        known = ray.put(self._known)  # once for all tasks
        numbers, size, arguments = self._numbers, self._size, self._arguments
        tasks = []
        for first in range(0, len(numbers), size):
            chosen = _short(numbers[first : first + size])
            read = functools.partial(read_block, arguments, known, chosen)
            tasks.append(ReadTask(read, BlockMetadata(len(chosen), None, None)))

        class Rows(Datasource):
            def estimate_inmemory_data_size(self) -> int | None:
                return None

            def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
                return tasks

        return Rows()


def _short(numbers: Sequence[int]) -> Sequence[int]:
    """A range where they are one."""
    first, last = numbers[0], numbers[-1]
    return range(first, last + 1) if last - first + 1 == len(numbers) else numbers


def read_block(arguments: tuple[Any, ...], known: ray.ObjectRef, numbers: Sequence[int]) -> list[pyarrow.Table]:
    """In a worker of Ray."""
    rows = _open(arguments, known)
    return [pickled_table("row", ((number, rows[number]) for number in numbers))]


@functools.lru_cache(maxsize=1)
def _open(arguments: tuple[Any, ...], known: ray.ObjectRef) -> SolutionFile:
    """Kept for the next block that the same process reads: a packed file is read from its start otherwise."""
    import ray

    (source, part, split), expected = arguments, ray.get(known)
    rows = SolutionFile(source, (), part, split, known=expected, check=False)
    if expected is not None and (rows.identity() or {}).get("digest") != expected["digest"]:
        raise UserError(f"{source}: has changed since this run began")
    return rows


def pickled_table(name: str, rows: Iterable[tuple[int, Any]]) -> pyarrow.Table:
    """Columns ``number``, int64, and ``name``, the pickled objects."""
    import pyarrow

    numbers, objects = zip(*rows, strict=True)
    texts = [pickle.dumps(each, pickle.HIGHEST_PROTOCOL) for each in objects]
    return pyarrow.table(
        {"number": pyarrow.array(numbers, pyarrow.int64()), name: pyarrow.array(texts, pyarrow.binary())}
    )
