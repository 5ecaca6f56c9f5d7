"""The options of an output that is a folder of parts, written by one process or several."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.job import Sharing
from thinkprm_jax.records.parts import FORMATS
from thinkprm_jax.records.row_files import PACKED, PARQUET, is_row_file
from thinkprm_jax.storage import Location, location
from thinkprm_jax.views.sharing import add_sharing_options, chosen_sharing


@dataclass(frozen=True, kw_only=True)
class FolderJob(Sharing):
    """An output that is a folder.

    Attributes:
      folder: where it is. form: of its parts.
    """

    folder: Location
    form: str


def add_job_options(parser: argparse.ArgumentParser) -> None:
    group = add_sharing_options(parser, "a folder as output, and several processes")
    group.add_argument("--format", choices=FORMATS, help="of the parts in the folder (default: jsonl)")


def chosen_job(options: argparse.Namespace) -> FolderJob | None:
    """What the options say; None where the output is one file, or the screen.

    Raises:
      UserError: they do not go together.
    """
    output: str | None = options.output
    sharing = chosen_sharing(options)
    rank = sharing.rank
    given = [
        name for name, value in (("--format", options.format), ("--parts", options.parts)) if value is not None
    ]
    folder = output is not None and (output.endswith("/") or location(output).is_dir())
    if output is not None and not folder and (given or rank.processes > 1) and not is_row_file(output):
        folder = True
    if folder:
        assert output is not None
        values = {field.name: getattr(sharing, field.name) for field in dataclasses.fields(sharing)}
        return FolderJob(**values, folder=location(output), form=options.format or "jsonl")
    if given:
        raise UserError(f"{given[0]} is for a folder: --output FOLDER/")
    # Tasks of an array often have files of their own; a file that two of them write is refused when it is opened.
    if rank.processes > 1 and rank.source != "SLURM array":
        raise UserError(
            f"{rank.processes} processes ({rank.source}) share a folder: --output FOLDER/; or "
            "--processes 1, where each has files of its own"
        )
    if output is not None and output.lower().endswith((*PACKED, PARQUET)):
        raise UserError(f"{output}: a single file is JSON Lines; for others give --output FOLDER/ --format ...")
    return None
