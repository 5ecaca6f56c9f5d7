"""The options that say which rows of an input are meant, the same for every program that takes them."""

from __future__ import annotations

import argparse

from thinkprm_jax.records.row_source import Part, parse_shard


def add_part_options(parser: argparse.ArgumentParser, split: bool = True) -> None:
    """split: whether the input can be a data set with splits."""
    add = parser.add_argument_group("which rows").add_argument
    add("--start", type=int, default=0, metavar="ROW", help="the first row, from 0 (default: 0)")
    add("--end", type=int, metavar="ROW", help="the row behind the last one (default: to the end)")
    add("--shard", metavar="I/N", help="of these rows the I-th of N parts, from 0: 0/8 is the first of eight")
    if split:
        add("--split", default="train", help="of a data set (default: train)")


def chosen_part(options: argparse.Namespace) -> Part:
    """What the options of :func:`add_part_options` say. `UserError` where they make no sense."""
    shard = None if options.shard is None else parse_shard(options.shard)
    return Part(options.start, options.end, shard)
