"""The page at `/`: one file, which loads nothing."""

from __future__ import annotations

import functools
from pathlib import Path

# The page may ask this server and nobody else.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@functools.cache
def html() -> str:
    return (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
