"""The options of an output that is a folder of parts, written by one process or several."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from thinkprm_jax.distributed.rank import Rank, find_rank
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.claims import LEASE_SECONDS
from thinkprm_jax.records.parts import FORMATS
from thinkprm_jax.records.row_files import PACKED, PARQUET, is_row_file
from thinkprm_jax.storage import Location, location

ROWS_A_PART = 10_000  # at most, where nobody says how many parts there are to be
_PARTS_A_PROCESS = 4  # at least, so that the last ones are not waited for long


@dataclass(frozen=True)
class FolderJob:
    """An output that is a folder.

    Attributes:
      folder: where it is. form: of its parts. parts: how many; None: as many as the rows need.
      rank: which process this is. lease: seconds. waits: for parts that others hold.
    """

    folder: Location
    form: str
    parts: int | None
    rank: Rank
    lease: float
    waits: bool

    def parts_of(self, rows: int) -> int:
        """How many parts so many rows have."""
        if self.parts is not None:
            return self.parts
        wanted = self.rank.processes * _PARTS_A_PROCESS if self.rank.processes > 1 else 1
        return max(1, min(max(wanted, -(-rows // ROWS_A_PART)), rows))


def add_job_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("a folder as output, and several processes").add_argument
    add("--format", choices=FORMATS, help="of the parts in the folder (default: jsonl)")
    add("--parts", type=int, metavar="N", help=f"how many (default: at most {ROWS_A_PART:,} rows each)")
    add("--processes", type=int, metavar="N", help="how many work on it (default: what SLURM or a TPU pod says)")
    add("--process", type=int, metavar="I", help="which of them this is, from 0")
    help = f"without a sign of life, after which others take over (default: {LEASE_SECONDS:.0f})"
    add("--lease", type=float, default=LEASE_SECONDS, metavar="SECONDS", help=help)
    help = "end when all parts that are left are held by others, with status 3, and do not wait for them"
    add("--no-wait", action="store_true", help=help)


def chosen_job(options: argparse.Namespace) -> FolderJob | None:
    """What the options say; None where the output is one file, or the screen.

    Raises:
      UserError: they do not go together.
    """
    output: str | None = options.output
    rank = find_rank(options.processes, options.process)
    given = [
        name for name, value in (("--format", options.format), ("--parts", options.parts)) if value is not None
    ]
    folder = output is not None and (output.endswith("/") or location(output).is_dir())
    if output is not None and not folder and (given or rank.processes > 1) and not is_row_file(output):
        folder = True
    if folder:
        assert output is not None
        if options.parts is not None and options.parts < 1:
            raise UserError(f"--parts is {options.parts}, it must be at least 1")
        if options.lease < 1:
            raise UserError(f"--lease is {options.lease:g}, it must be at least 1 second")
        place, form = location(output), options.format or "jsonl"
        return FolderJob(place, form, options.parts, rank, options.lease, not options.no_wait)
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
