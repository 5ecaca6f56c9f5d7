"""The parts of an output: their names, and a file of rows as it becomes one, in any of the formats."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.columns import arrow_schema, fit
from thinkprm_jax.storage import Location, open_whole

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")
_BATCH = 500  # rows


def part_name(part: int, parts: int, form: str) -> str:
    """`part-00003-of-00008.parquet`."""
    return f"part-{part:05d}-of-{parts:05d}.{form}"


def write_part(
    lines: Iterable[bytes], part: Location, form: str, columns: Mapping[str, Any] | None = None
) -> None:
    """Makes a part of lines of JSON; it is there whole or not at all.

    Args:
      form: one of FORMATS. columns: of Parquet, as :mod:`thinkprm_jax.records.columns` has them.
    Raises:
      UserError: it cannot be written.
    """
    with open_whole(part) as file:
        if form == "parquet":
            assert columns is not None
            _write_parquet(lines, file, columns)
            return
        if form == "jsonl.gz":
            with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
                packed.writelines(lines)
        elif form == "jsonl.zst":
            import pyarrow

            with pyarrow.CompressedOutputStream(pyarrow.PythonFile(file, "w"), "zstd") as packed:
                for line in lines:
                    packed.write(line)
        else:
            file.writelines(lines)


def _write_parquet(lines: Iterable[bytes], file: IO[bytes], columns: Mapping[str, Any]) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = arrow_schema(columns)
    with parquet.ParquetWriter(pyarrow.PythonFile(file, "w"), schema, compression="zstd") as writer:
        for batch in _batches(lines):
            batch = [fit(row, columns) for row in batch]
            try:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema), row_group_size=_BATCH)
            except (pyarrow.ArrowException, OverflowError, TypeError) as error:
                raise UserError(f"a row does not fit its columns of Parquet: {error}") from error


def _batches(lines: Iterable[bytes]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for line in lines:
        batch.append(json.loads(line))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
