"""Tables on a terminal (with lines), or in a pipe (aligned columns)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from thinkprm_jax.tables import TextTable


def show_report(lines: Sequence[str], items: Sequence[str | TextTable]) -> None:
    """Lines on stdout, then each item below an empty line. A table that is wider than the terminal is wrapped by
    it: a figure is never cut off."""
    fancy = sys.stdout.isatty()
    console = Console(highlight=False, markup=False)
    shown = [rich_table(item, fancy) if isinstance(item, TextTable) else item for item in items]
    roomy = console.options.update(max_width=1000, width=1000)
    tables = [item for item in shown if isinstance(item, Table)]
    widest = max((Measurement.get(console, roomy, table).maximum for table in tables), default=0)
    console.width = max(widest, console.width if fancy else 0)
    for line in lines:
        console.print(line, soft_wrap=True)
    for item in shown:
        console.print()
        console.print(item, soft_wrap=not isinstance(item, Table))


def rich_table(table: TextTable, fancy: bool) -> Table:
    """fancy: for a terminal, else aligned lines for a pipe."""
    shown = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=fancy, padding=(0, 1 if fancy else 2, 0, 0))
    for column in table.columns:
        shown.add_column(column.heading, justify="right" if column.right else "left", no_wrap=True)
    for index, cells in enumerate(table.rows):
        shown.add_row(*cells, end_section=index in table.section_ends)
    return shown
