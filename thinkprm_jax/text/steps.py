"""Splitting a written solution into steps."""

from __future__ import annotations

import re

_LABEL = re.compile(r"\s*Step\s+\d+\s*:\s*")


def strip_step_label(step: str) -> str:
    """The step without the `Step k:` it may begin with."""
    match = _LABEL.match(step)
    return step[match.end() :] if match else step
