"""Rows from wherever people have them: files, folders, data sets of the Hugging Face Hub."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.paths import check_input
from thinkprm_jax.records.jsonl import WrittenNumber
from thinkprm_jax.user_files import GivenTwice, check_whole_file, json_fault, parse_json

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SUFFIXES = (".json", ".jsonl", ".parquet")


def iterate_source(source: str, split: str = "train", config: str | None = None) -> Iterator[tuple[str, Any]]:
    """(place, row) of every row; ``place`` names it in errors (`rows.jsonl:12`). Rows are not checked: any JSON.

    Args:
      source: a file of JSON Lines, JSON (a list) or parquet; a pattern of such files (`rows/*.jsonl`); a folder as
        `datasets` saves or loads it; or the id of a data set on the Hugging Face Hub (`owner/name`,
        `owner/name@revision`).
      split: of a folder or of a data set of the hub. config: the name of a configuration, for data sets of the hub
        that have several.
    Raises:
      UserError: it cannot be read; one line that names the file, and the line where there is one.
    """
    path = Path(source)
    name, _, revision = source.partition("@")
    if path.is_dir():
        yield from _dataset_rows(source, source, split, config)
        return
    is_pattern = any(character in source for character in "*?[") and not path.exists()
    if not path.exists() and not is_pattern and path.suffix not in _SUFFIXES and _HUB_ID.fullmatch(name):
        yield from _dataset_rows(source, name, split, config, revision or None)
        return
    files = sorted(map(Path, glob.glob(source))) if is_pattern else [path]
    if not files:
        raise UserError(f"{source}: no such files")
    for file in files:
        check_input(file, pipes=True)
        if file.is_file():  # and no pipe, which cannot be read twice
            with reading(file):
                check_whole_file(file)
        yield from _parquet_rows(file) if file.suffix == ".parquet" else _text_rows(file)


def _dataset_rows(
    place: str, name: str, split: str, config: str | None, revision: str | None = None
) -> Iterator[tuple[str, Any]]:
    """Rows of a folder or of a data set of the hub, through `datasets`."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{place}: reading it needs the package datasets: pip install datasets") from error
    try:
        if (Path(name) / "state.json").exists() or (Path(name) / "dataset_dict.json").exists():
            loaded = datasets.load_from_disk(name)
            if isinstance(loaded, datasets.DatasetDict):
                if split not in loaded:
                    raise UserError(f"{place}: no split {split} (it has {', '.join(loaded)})")
                loaded = loaded[split]
        else:
            given = {} if config is None else {"name": config}
            files = _plain_files(name, split, given)
            if files is not None:
                # Read as each of them is read alone: a table of one type a column would change numbers and dates.
                for file in files:
                    yield from iterate_source(file)
                return
            loaded = datasets.load_dataset(name, split=split, revision=revision, **given)
    except UserError:
        raise
    except Exception as error:  # dozens of kinds: no such repository, gated, offline, no such split, not JSON
        local = Path(name).exists()
        # Of a local file `datasets` says only that it failed; what was wrong stands in the cause.
        reason = " ".join(str((local and error.__cause__) or error).split()) or type(error).__name__
        kind = "" if local else "no such file, and not available from the Hugging Face Hub: "
        raise UserError(f"{place}: {kind}{reason}") from error
    yield from ((f"{place}: row {number}", row) for number, row in enumerate(loaded, start=1))


def _plain_files(name: str, split: str, given: Mapping[str, str]) -> list[str] | None:
    """The files that `datasets` finds in a folder for a split; None where there are any that we do not read."""
    if not Path(name).is_dir():
        return None
    import datasets

    found = getattr(datasets.load_dataset_builder(name, **given).config, "data_files", None) or {}
    files = [str(file) for file in found.get(split, ())]
    return files if files and all(Path(file).suffix in _SUFFIXES for file in files) else None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: reading parquet needs the package pyarrow: pip install pyarrow") from error
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


def _text_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a JSON Lines file, or of a JSON file with a list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if text.lstrip().startswith("["):
        rows = _parse(text, path, 1)
        yield from ((f"{path}: item {number}", row) for number, row in enumerate(rows, start=1))
        return
    # Not splitlines(): JSON text may hold line separators that are no newlines.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _parse(line, path, number)


def _parse(text: str, path: Path, first: int) -> Any:
    """first: the line of the file in which the text begins."""
    with reading(f"{path}:{first}"):
        try:
            return parse_json(text, parse_float=WrittenNumber)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{first + error.lineno - 1}: not JSON: {error.msg}") from error
        except GivenTwice as error:
            raise UserError(f"{path}:{first + error.line - 1}: {error}") from error
        except ValueError as error:
            raise UserError(f"{path}:{first}: not JSON: {json_fault(error)}") from error
