"""What all programs share: how a failure that is the user's business reaches the user."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from thinkprm_jax.errors import UserError

Main = Callable[[Sequence[str]], int]  # arguments -> exit status


def run(main: Main, arguments: Sequence[str], name: str = "thinkprm") -> int:
    """Exit status of ``main``; a :class:`UserError` becomes one line on stderr and status 2. Any other exception
    is our mistake: its traceback and status 70, which no program gives for results that are only incomplete."""
    try:
        return main(arguments)
    except UserError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (`| head`) has gone; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:
        traceback.print_exc()
        return 70
