"""Tables as data: what a program shows on a terminal, in Markdown or on a page is made from the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableColumn:
    """A column. right: numbers, which end at the same place."""

    heading: str
    right: bool = False


@dataclass
class TextTable:
    """Columns and rows of text.

    Attributes:
      columns: from left to right.
      rows: cells, as many as there are columns.
      section_ends: numbers of the rows behind which a section of the table ends.
    """

    columns: Sequence[TableColumn]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    section_ends: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, *headings: str, left: int = 1) -> TextTable:
        """An empty table: the first ``left`` columns hold words, the others numbers.

        table = TextTable.of("figure", "value", "n")
        table.add("AUROC", "0.912", "1,000")
        """
        return cls([TableColumn(heading, place >= left) for place, heading in enumerate(headings)])

    def add(self, *cells: str, ends_section: bool = False) -> None:
        """A row below the others.

        Raises:
          ValueError: there are more or fewer cells than columns.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        if ends_section:
            self.section_ends.add(len(self.rows))
        self.rows.append(cells)

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.columns]

    def markdown(self) -> str:
        """A table of Markdown, without the ends of sections."""
        marks = ["---:" if column.right else "---" for column in self.columns]
        return "\n".join(map(_markdown_row, [self.headings, marks, *self.rows]))


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
