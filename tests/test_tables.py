"""Tables as data, and as a terminal and Markdown show them."""

from __future__ import annotations

import pytest

from thinkprm_jax.tables import TextTable
from thinkprm_jax.views.terminal import show_report


def small_table() -> TextTable:
    table = TextTable.of("name", "N")
    table.add("a", "1", ends_section=True)
    table.add("b", "12")
    return table


def test_a_table_as_markdown_has_its_rows_and_columns() -> None:
    assert small_table().markdown() == "| name | N |\n| --- | ---: |\n| a | 1 |\n| b | 12 |"


def test_a_row_has_a_cell_a_column() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        small_table().add("a")


def test_in_a_pipe_columns_are_aligned_and_nothing_is_cut(capsys) -> None:
    table = small_table()
    table.add("c" * 200, "3")
    show_report(["above"], ["between", table])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["above", "", "between", ""]
    rows = [line.split() for line in lines[4:]]
    assert rows == [["name", "N"], ["a", "1"], ["b", "12"], ["c" * 200, "3"]]
    ends = {len(line.rstrip()) for line in lines[4:]}
    assert len(ends) == 1  # numbers end at the same place
