"""Files that are whole, whatever stops the program that writes them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """The file then holds ``content``; after a kill or on a full disk, what it held before, never a part.

    The content goes into a hidden file beside it, which then takes its name. Two programs that write one file at
    a time do not mix: the last one counts.

    Args:
      path: in a folder that exists; of a link, the file behind it is replaced.
      content: a text is written in UTF-8.
    Raises:
      UserError: the file cannot be written (names it and says why).
    """
    target = Path(path)
    with contextlib.suppress(OSError, RuntimeError):  # a link that leads nowhere, or in a circle: replaced itself
        target = target.resolve(strict=True)
    work = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        try:
            with open(work, "xb") as file:  # in the mode that any new file has
                file.write(data)
            os.replace(work, target)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """:func:`atomic_write` of a JSON object, indented, in ASCII."""
    atomic_write(path, json.dumps(content, indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no JSON object")
    return content
