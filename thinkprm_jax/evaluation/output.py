"""Where an evaluation's figures go: tables on the terminal, JSON, pictures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.files import write_json

if TYPE_CHECKING:
    from thinkprm_jax.evaluation.plots import Draw


@dataclass(frozen=True)
class Report:
    """What an evaluation found. content: as JSON. lines: of text above the tables. tables: for the terminal.
    draws: panels of the picture."""

    content: Mapping[str, Any]
    lines: Sequence[str]
    tables: Sequence[Any]
    draws: Sequence[Draw]


@dataclass(frozen=True)
class Output:
    """json: a file, "-" for stdout in place of the tables, or None. details: a JSON Lines file. plots: a file
    without its suffix. folder: everything else that an evaluation writes."""

    json: str | None = None
    details: Path | None = None
    plots: Path | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Output:
        """What the options of :func:`add_output_options` say.

        Raises:
          UserError: a file cannot be written; said before hours of work, and without touching anything.
        """
        folder = options.output_dir
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{folder}: cannot be made: {error.strerror}") from error
        details = getattr(options, "details", None)
        found = cls(
            options.output or (None if folder is None else str(folder / "figures.json")),
            details or (None if folder is None else folder / "details.jsonl"),
            options.plots or (None if folder is None else folder / "figures"),
            folder,
        )
        check_writable(found.json)
        if found.plots is not None:
            check_writable(f"{found.plots}.png")
        return found

    def write(self, report: Report, quiet: bool = False) -> None:
        """Writes the files, then prints the tables (or the JSON), unless ``quiet``."""
        self.write_json(report.content)
        if self.plots is not None and report.draws:
            from thinkprm_jax.evaluation.plots import save_figure

            save_figure(self.plots, report.draws)
        if self.json != "-" and not quiet:
            _print(report)

    def write_json(self, content: Mapping[str, Any]) -> None:
        if self.json == "-":
            print(json.dumps(content, indent=2))
        elif self.json is not None:
            write_json(self.json, content)


def is_fancy() -> bool:
    """Tables with lines on a terminal, plain columns in a pipe."""
    return sys.stdout.isatty()


def add_output_options(parser: argparse.ArgumentParser, details: bool = True) -> None:
    """details: the task judges solutions one by one."""
    add = parser.add_argument_group("output").add_argument
    add("--output", metavar="FILE.json", help="the figures as JSON; - prints JSON in place of the tables")
    if details:
        add(
            "--details",
            type=Path,
            metavar="FILE.jsonl",
            help="every solution with its verdict; a run that was stopped goes on from it",
        )
    add("--plots", type=Path, metavar="STEM", help="pictures: STEM.png and STEM.svg")
    add(
        "--output-dir",
        type=Path,
        metavar="FOLDER",
        help="all of these: figures.json, figures.png, figures.svg" + (", details.jsonl" if details else ""),
    )


def check_writable(path: str | None) -> None:
    """Refuses a file that cannot be written, before hours of work and without touching it."""
    if path is None or path == "-":
        return
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{path}: is a folder")
    if not file.parent.is_dir():
        raise UserError(f"{path}: there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"{path}: cannot be written")


def _print(report: Report) -> None:
    """A table that is wider than the terminal is wrapped by it: a figure is never cut off."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    tables = [table for table in report.tables if isinstance(table, Table)]
    roomy = console.options.update(max_width=1000, width=1000)
    widest = max((Measurement.get(console, roomy, table).maximum for table in tables), default=0)
    console.width = max(widest, console.width if is_fancy() else 0)
    for line in report.lines:
        console.print(line, soft_wrap=True)
    for item in report.tables:
        console.print()
        console.print(item, soft_wrap=not isinstance(item, Table))
