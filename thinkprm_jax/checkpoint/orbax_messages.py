"""What Orbax and TensorStore say of themselves: nothing of what goes well, and of a failure one line.

Orbax reports every file that it touches. Where one array cannot be read, it lets go of all others that are under
way, and each of those complains on its own: to asyncio's log, as a warning, or to a hook of the interpreter. That
makes dozens of stack traces around one error, which is raised, too.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_LONGEST = 300  # characters
# In what asyncio says of a task of theirs: where it is, or the status of TensorStore that it failed with.
_THEIRS = re.compile(r"orbax/checkpoint|tensorstore|_wrap_awaitable|ValueError\(['\"][A-Z_]+: ")
_WARNINGS = r"coroutine '(PyTreeHandler|Store|CompatibleTypeHandler)\.\w+' was never awaited"


@functools.cache
def quiet() -> None:
    """From here on only what Orbax raises is heard of it. Other users of asyncio are heard as before."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_of_others)
    warnings.filterwarnings("ignore", _WARNINGS, RuntimeWarning)
    before = sys.unraisablehook

    def hook(unraisable: UnraisableHookArgs) -> None:
        code = getattr(unraisable.object, "cr_code", None)  # of a coroutine that was let go
        theirs = code is not None and _THEIRS.search(code.co_filename) is not None
        # TensorStore calls back into a loop that Orbax has closed.
        late = unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed"
        if not theirs and not late:
            before(unraisable)

    sys.unraisablehook = hook


def reason(error: BaseException) -> str:
    """What Orbax or TensorStore raised, in one line: the first cause, around which Orbax wraps others."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, KeyError) and " " not in text:
        return f"{text} is missing"
    return text or type(error).__name__


def _is_of_others(record: logging.LogRecord) -> bool:
    return _THEIRS.search(record.getMessage()) is None
