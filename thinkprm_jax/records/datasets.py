"""Rows from wherever people have them: files, folders, data sets of the Hugging Face Hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.jsonl import parse_value, type_name
from thinkprm_jax.records.row_files import SUFFIXES, is_row_file, open_row_file
from thinkprm_jax.storage import ObjectPath, location

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DATASET_FILES = ("state.json", "dataset_dict.json")  # a folder that `save_to_disk` has written holds one
JOB = ".job"  # a folder in the folder of an output that several processes write


def iterate_source(source: str, split: str = "train", config: str | None = None) -> Iterator[tuple[str, Any]]:
    """(place, row) of every row; ``place`` names it in errors (`rows.jsonl:12`). Rows are not checked: any JSON.

    Args:
      source: a file of JSON Lines (also .gz and .zst), JSON (a list) or Parquet; a pattern of such files
        (`rows/*.jsonl`); a folder as `datasets` saves or loads it; or the id of a data set on the Hugging Face Hub
        (`owner/name`, `owner/name@revision`).
      split: of a folder or of a data set of the hub. config: the name of a configuration, for data sets of the hub
        that have several.
    Raises:
      UserError: it cannot be read; one line that names the file, and the line where there is one.
    """
    place = location(source)
    # Of a folder `datasets` says which files belong to a split; the parts of an output have none.
    of_splits = isinstance(place, Path) and place.is_dir() and not (place / JOB).is_dir()
    files = None if of_splits else find_files(source)
    if files is None:
        found = load_dataset(source, split, config)
        if not isinstance(found, tuple):
            yield from ((f"{source}: row {number}", row) for number, row in enumerate(found, start=1))
            return
        files = list(found)
    for file in files:
        with open_row_file(file, parse=parse_value) as rows:
            yield from rows


def iterate_objects(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """:func:`iterate_source` of rows that must be objects.

    Raises:
      UserError: also where one is something else, or there is none.
    """
    place = None
    for place, row in iterate_source(source):
        if not isinstance(row, dict):
            raise UserError(f"{place}: a row must be a JSON object, this is {type_name(row)}")
        yield place, row
    if place is None:
        raise UserError(f"{source}: no rows in it")


def find_files(source: str) -> list[str] | None:
    """The files of rows that a source names, in order: a file, a pattern of files (`rows/*.parquet`), or those
    in a folder. None: it is something for `datasets`, a folder that it saved or the id of a data set.

    Raises:
      UserError: nothing fits the pattern, or the folder holds no such files.
    """
    place = location(source)
    if place.is_dir():
        if any((place / name).exists() for name in DATASET_FILES):
            return None
        inside = [file for file in place.iterdir() if not file.name.startswith((".", "_"))]
        files = sorted(str(file) for file in inside if is_row_file(file))
        if not files and any(file.is_dir() for file in inside):
            return None  # the layout of the hub: `datasets` knows which files belong to which split
        if not files:
            raise UserError(f"{source}: holds no files of rows ({', '.join(SUFFIXES)})")
        return files
    if is_pattern(source) and not place.exists():
        files = glob.glob(source, recursive=True) if isinstance(place, Path) else _match(place)
        if not files:
            raise UserError(f"{source}: no such files")
        return sorted(files)
    return None if isinstance(place, Path) and not place.exists() and is_dataset_id(source) else [source]


def _match(pattern: ObjectPath) -> list[str]:
    """Of a pattern of objects, in which `*` stands for anything but a slash and `**/` for any folders."""
    parts = pattern.key.split("/")
    fixed = next(number for number, part in enumerate(parts) if is_pattern(part))
    if not fixed:
        raise UserError(f"{pattern}: the name of a bucket cannot be a pattern")
    below = ObjectPath(f"{pattern.scheme}://{'/'.join(parts[:fixed])}")
    wanted = re.compile(_expression(pattern.key))
    return [str(file) for file in below.files() if wanted.fullmatch(file.key)]


def _expression(pattern: str) -> str:
    """As a regular expression."""
    made = re.escape(pattern).replace(re.escape("**/"), "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return re.sub(r"\\\[(!?)(.+?)\\\]", lambda found: f"[{'^' if found[1] else ''}{found[2]}]", made)


def is_pattern(source: str) -> bool:
    return any(character in source for character in "*?[")


def is_dataset_id(source: str) -> bool:
    """Whether it could be the id of a data set of the hub: `owner/name`, `owner/name@revision`."""
    return not is_row_file(source) and _HUB_ID.fullmatch(source.partition("@")[0]) is not None


def load_dataset(source: str, split: str, config: str | None = None) -> Any:
    """A folder or a data set of the hub, through `datasets`: its table, or a tuple of the files of rows in it.

    Args:
      source: a folder, or `owner/name`, or `owner/name@revision`. split, config: as of :func:`iterate_source`.
    Raises:
      UserError: it cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{source}: reading it needs the package datasets: pip install datasets") from error
    name, _, revision = (source, "", "") if Path(source).is_dir() else source.partition("@")
    try:
        if any((Path(name) / file).exists() for file in DATASET_FILES):
            loaded = datasets.load_from_disk(name)
            if isinstance(loaded, datasets.DatasetDict):
                if split not in loaded:
                    raise UserError(f"{source}: no split {split} (it has {', '.join(loaded)})")
                loaded = loaded[split]
            return loaded
        given = {} if config is None else {"name": config}
        # Read as each of them is read alone: a table of one type a column would change numbers and dates.
        files = _plain_files(name, split, given)
        if files is not None:
            return files
        return datasets.load_dataset(name, split=split, revision=revision or None, **given)
    except UserError:
        raise
    except Exception as error:  # dozens of kinds: no such repository, gated, offline, no such split, not JSON
        local = Path(name).exists()
        # Of a local file `datasets` says only that it failed; what was wrong stands in the cause.
        reason = " ".join(str((local and error.__cause__) or error).split()) or type(error).__name__
        kind = "" if local else "no such file, and not available from the Hugging Face Hub: "
        raise UserError(f"{source}: {kind}{reason}") from error


def _plain_files(name: str, split: str, given: Mapping[str, str]) -> tuple[str, ...] | None:
    """The files that `datasets` finds in a folder for a split; None where there are any that we do not read."""
    if not Path(name).is_dir():
        return None
    import datasets

    found = getattr(datasets.load_dataset_builder(name, **given).config, "data_files", None) or {}
    files = tuple(str(file) for file in found.get(split, ()))
    return files if files and all(is_row_file(file) for file in files) else None
