"""JAX's persistent compilation cache, on by default for our programs: a second start compiles nothing.

And what else a program sets for its whole process."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Literal, NoReturn

from thinkprm_jax.caches import chosen_cache, user_cache
from thinkprm_jax.errors import UserError

logger = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Where compiled programs are kept; None where the user switched the cache off.

    In this order: $THINKPRM_JAX_CACHE, the user's cache folder of the platform. Programs compiled for one CPU may
    not run on another, and home folders are shared between machines: each kind of machine has its own subfolder.
    """
    chosen = chosen_cache()
    if chosen is None:
        return None
    if chosen:
        return Path(chosen).expanduser()
    return user_cache() / "thinkprm_jax" / "compiled" / machine()


def enable_compilation_cache() -> Path | None:
    """Switches the cache on, unless the user chose otherwise by $THINKPRM_JAX_CACHE or by JAX's own variables
    ($JAX_COMPILATION_CACHE_DIR, $JAX_ENABLE_COMPILATION_CACHE). Call it before the first compilation.

    Returns: the folder in use, or None.
    """
    import jax

    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen:  # the user's own, with the user's own thresholds
        return Path(chosen)
    folder = cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("no compilation cache: %s", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX keeps only what took a second to compile; a small model is dozens of programs below that.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    logger.info("compiled programs are kept in %s", folder)
    return folder


def keep_memory() -> bool:
    """Lets the process keep freed memory for what it allocates next, where its C library is glibc.

    XLA fetches the temporaries of a training step on CPUs from the C library and gives them back, which by default
    returns large blocks to the system: each step then pays for half a million page faults. The process stays as
    large as it ever was. For programs, before JAX has its
    devices: threads that exist keep arenas of their own.

    Returns: whether the C library does so.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena, which grows without end; no block has a mapping of its own; nothing is trimmed.
    return all(mallopt(option, value) for option, value in _MALLOC_OPTIONS)


# M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
_MALLOC_OPTIONS = ((-8, 1), (-4, 0), (-1, -1))


def machine() -> str:
    """A short name of the kind of CPU."""
    description = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        description += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    return hashlib.sha256(description.encode()).hexdigest()[:12]


in_fork = False  # whether this process is a fork of one in which JAX was at work


def _after_fork() -> None:
    global in_fork
    bridge = sys.modules.get("jax._src.xla_bridge")
    in_fork = in_fork or (bridge is not None and bridge.backends_are_initialized())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def refuse_forked() -> None:
    """UserError in a child of a fork whose parent had JAX at work: JAX's threads did not come along, and whatever
    is computed would wait for them for ever."""
    if in_fork:
        raise UserError(
            "this process is a fork of one in which JAX was at work, and nothing can be computed here: start it "
            'with multiprocessing.get_context("spawn"), and load the model in it'
        )


def refuse_pickling(thing: object) -> NoReturn:
    """The TypeError of what cannot be sent to another process."""
    raise TypeError(
        f"a {type(thing).__name__} cannot be pickled: it holds a model on devices, and threads. Make it in the "
        'process that uses it, which multiprocessing.get_context("spawn") starts'
    )


def compile_count(function: object) -> int:
    """For how many shapes a jitted function has been compiled."""
    return function._cache_size()  # type: ignore[attr-defined]  # JAX has no public way to ask


def default_dtype() -> Literal["float32", "bfloat16"]:
    """float32 on CPUs, where bfloat16 products are slower; bfloat16 elsewhere."""
    import jax

    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
