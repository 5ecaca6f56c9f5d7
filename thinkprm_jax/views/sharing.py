"""The options of a program that several processes may run on one output."""

from __future__ import annotations

import argparse

from thinkprm_jax.distributed.rank import find_rank
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.claims import LEASE_SECONDS
from thinkprm_jax.records.job import ROWS_A_PART, Sharing

VALUES = ("--parts", "--processes", "--process", "--lease")  # those of the options that take a value


def add_sharing_options(
    parser: argparse.ArgumentParser, title: str = "several processes", parts: str = f"{ROWS_A_PART:,} rows"
) -> argparse._ArgumentGroup:
    """Returns: their group. parts: how large a part is at most, where nobody says how many there are to be."""
    group = parser.add_argument_group(title)
    add = group.add_argument
    add("--parts", type=int, metavar="N", help=f"how many (default: at most {parts} each)")
    add("--processes", type=int, metavar="N", help="how many work on it (default: what SLURM or a TPU pod says)")
    add("--process", type=int, metavar="I", help="which of them this is, from 0")
    help = f"without a sign of life, after which others take over (default: {LEASE_SECONDS:.0f})"
    add("--lease", type=float, default=LEASE_SECONDS, metavar="SECONDS", help=help)
    help = "end when all parts that are left are held by others, with status 3, and do not wait for them"
    add("--no-wait", action="store_true", help=help)
    return group


def chosen_sharing(options: argparse.Namespace) -> Sharing:
    """What the options say, or the environment.

    Raises:
      UserError: a value cannot be, or half of what they need is given.
    """
    rank = find_rank(options.processes, options.process)
    if options.parts is not None and options.parts < 1:
        raise UserError(f"--parts is {options.parts}, it must be at least 1")
    if options.lease < 1:
        raise UserError(f"--lease is {options.lease:g}, it must be at least 1 second")
    return Sharing(rank, options.parts, options.lease, not options.no_wait)
