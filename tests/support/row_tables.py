"""The tables of docs/files.md, made from the row classes.

python tests/support/row_tables.py     # writes them into the page
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any

from thinkprm_jax import records
from thinkprm_jax.records.schema import field_types

PAGE = Path(__file__).parents[2] / "docs" / "files.md"
CLASSES: tuple[type[records.Record], ...] = (
    records.VerdictRow,
    records.VerdictRecord,
    records.ChainRecord,
    records.EvaluationRow,
    records.Outcome,
    records.LabelledSolutionRow,
    records.CompletionRow,
    records.SearchTokens,
    records.SearchVerdictRow,
    records.SearchedRow,
    records.SearchPieceRow,
    records.SearchJudgementRow,
    records.GenerationRow,
    records.DecisionRow,
    records.CollectedChainRow,
)
_PLAIN: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    Any: "anything",
}


def fields_table(kind: type[Any]) -> str:
    """A field a row: its name, what it holds, what that means."""
    about = described(kind)
    lines = ["| field | holds | |", "|---|---|---|"]
    optional = {field.name for field in dataclasses.fields(kind) if "left_out" in field.metadata}
    for name, hint in field_types(kind).items():
        holds = in_words(hint) + (", or not there" if name in optional else "")
        lines.append(f"| `{name}` | {holds} | {about[name]} |")
    return "\n".join(lines)


def described(kind: type) -> dict[str, str]:
    """Field -> what the docstring says of it."""
    text = inspect.getdoc(kind) or ""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.partition("Attributes:\n")[2].splitlines():
        entry = re.match(r"  (\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2].strip())
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    plain = {name: re.sub(r":\w+:`[.~!]*([^`]+)`", r"`\1`", text) for name, text in found.items()}
    return {name: plain[name].replace("``", "`").replace("|", "\\|").strip() for name in plain}


def in_words(hint: Any) -> str:
    """A type of :mod:`thinkprm_jax.records.schema` for people."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return str(arguments[1].wanted).removeprefix("a ").removeprefix("the ")
    if origin in (types.UnionType, typing.Union):
        kinds = [in_words(one) for one in arguments if one is not types.NoneType]
        return f"{' or '.join(kinds)}, or null"
    if origin is tuple:
        return f"list of {in_words(arguments[0]).replace(', or null', ' or null')}"
    if origin is not None:
        return "object" if arguments[1] is Any else f"object of {in_words(arguments[1])}"
    return _PLAIN.get(hint) or f"`{hint.__name__}`"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    for kind in CLASSES:
        pattern = rf"(<!-- {kind.__name__} -->\n).*?(\n<!-- end -->)"
        table = fields_table(kind)
        page, count = re.subn(pattern, lambda m, table=table: m[1] + table + m[2], page, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{PAGE}: no place for {kind.__name__}")
    PAGE.write_text(page, encoding="utf-8")
