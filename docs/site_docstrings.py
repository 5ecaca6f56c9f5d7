"""Turns docstrings into the form that mkdocstrings reads: the code's own leave out what a reader does not need.

A blank line before each section, ``Example::`` as a heading, and plain names in place of Sphinx's roles.
"""

from __future__ import annotations

import re
import textwrap

import griffe

_SECTIONS = r"(?:Args|Attributes|Returns|Yields|Raises)"


class PlainDocstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)


def plain(text: str) -> str:
    text = re.sub(r":(?:class|func|meth|mod|data):`[.~!]*([^`]+)`", r"`\1`", text)
    text = re.sub(r"(?m)^(\s*)([^\n]*?)::$", r"\1\2:", text)
    text = re.sub(r"(?m)^( *)Example:\n((?:\1 +[^\n]*\n|\n(?=\1 ))*\1 +[^\n]*)", _fenced, text)
    return re.sub(rf"(?m)(?<!\n)\n(?={_SECTIONS}:$)", "\n\n", text)


def _fenced(match: re.Match[str]) -> str:
    """An indented example as a block of Python."""
    indent, code = match.groups()
    block = f"Example:\n\n```python\n{textwrap.dedent(code)}\n```\n"
    return textwrap.indent(block, indent)
