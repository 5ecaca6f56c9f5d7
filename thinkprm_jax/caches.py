"""The user's cache folder, as each platform has it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "THINKPRM_JAX_CACHE"  # a folder, or `off`


def chosen_cache() -> str | None:
    """What $THINKPRM_JAX_CACHE says: a folder, "" where it says nothing, None where it switches caches off."""
    chosen = os.environ.get(CACHE_VARIABLE, "")
    return None if chosen.lower() in ("off", "0", "no", "false") else chosen


def user_cache() -> Path:
    """The folder of all programs' caches."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    return Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache"
