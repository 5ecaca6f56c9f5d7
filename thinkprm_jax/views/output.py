"""Where an evaluation's figures go: tables on the terminal, JSON, pictures."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import check_output, check_output_folder
from thinkprm_jax.records.files import write_json
from thinkprm_jax.storage import Location, ObjectPath, location
from thinkprm_jax.views.places import place_option

if TYPE_CHECKING:
    from thinkprm_jax.evaluation.report import EvaluationReport


@dataclass(frozen=True)
class FigureOutput:
    """The places that a program's options name; None: not wanted.

    Attributes:
      json: a file, or "-" for stdout in place of the tables.
      details: a JSON Lines file, every solution with its verdict.
      plots: pictures, without their suffix.
    """

    json: str | None = None
    details: Location | None = None
    plots: Location | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> FigureOutput:
        """What the options of :func:`add_output_options` say.

        Raises:
          UserError: a file cannot be written; said before hours of work, and without touching anything.
        """
        folder = options.output_dir
        if folder is not None:
            check_output_folder(folder)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{folder}: cannot be made: {error.strerror}") from error
        details = getattr(options, "details", None)
        found = cls(
            options.output or (None if folder is None else str(folder / "figures.json")),
            details or (None if folder is None else folder / "details.jsonl"),
            options.plots or (None if folder is None else folder / "figures"),
        )
        check_writable(found.json)
        check_writable(None if details is None else str(details))
        for suffix in () if found.plots is None else ("png", "svg"):
            check_writable(f"{found.plots}.{suffix}")
        return found

    def write(self, report: EvaluationReport) -> None:
        """Writes the files, then prints the tables (or the JSON)."""
        self.save(report)
        if self.json != "-":
            from thinkprm_jax.views.terminal import show_report

            show_report(report.lines, report.tables)

    def save(self, report: EvaluationReport) -> None:
        """The files alone."""
        self.write_json(report.content)
        if self.plots is not None and report.panels:
            from thinkprm_jax.views.plots import save_figure

            save_figure(self.plots, report.panels)

    def write_json(self, content: Mapping[str, Any]) -> None:
        if self.json == "-":
            print(json.dumps(content, indent=2))
        elif self.json is not None:
            write_json(self.json, content)


def add_output_options(parser: argparse.ArgumentParser, details: bool = True) -> None:
    """details: the task judges solutions one by one."""
    add = parser.add_argument_group("output").add_argument
    add("--output", metavar="FILE.json", help="the figures as JSON; - prints JSON in place of the tables")
    if details:
        add(
            "--details",
            type=place_option,
            metavar="FILE.jsonl",
            help="every solution with its verdict; a run that was stopped goes on from it",
        )
    add("--plots", type=place_option, metavar="STEM", help="pictures: STEM.png and STEM.svg")
    add(
        "--output-dir",
        type=place_option,
        metavar="FOLDER",
        help="all of these: figures.json, figures.png, figures.svg" + (", details.jsonl" if details else ""),
    )


def check_writable(path: str | None) -> None:
    """Refuses a file that cannot be written, before hours of work and without touching it."""
    if path is None or path == "-":
        return
    check_output(path)
    file = location(path)
    if isinstance(file, ObjectPath):
        return  # a folder comes with its first file, and `check_output` has tried to write
    if not file.parent.is_dir():
        raise UserError(f"{path}: there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"{path}: cannot be written")
