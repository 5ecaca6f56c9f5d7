"""The C++ of this package, compiled by the machine that runs it when it is first used.

A wheel of pure Python goes everywhere, and what is compiled on a machine may use all that its processor has. The
result is kept beside the compiled programs of :mod:`thinkprm_jax.runtime`, for each source, kind of processor and
version of jaxlib, with its digest in its name: a file that is not what it was when it was written is made again.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

from thinkprm_jax.activity import compiling
from thinkprm_jax.runtime import cache_folder, machine

logger = logging.getLogger(__name__)

COMPILER_VARIABLE = "CXX"
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-O2", "-ffp-contract=fast", "-fPIC", "-shared", "-w")
_SECONDS = 120  # that a compiler may take; it takes three to five
_DIGEST = 16  # hexadecimal digits in a file's name


class NoLibraryError(Exception):
    """The C++ cannot be used here; says why, in a few words."""


@functools.lru_cache(maxsize=8)
def load_library(
    source: Path, include: str, flags: tuple[str, ...] = ("-march=native",)
) -> tuple[ctypes.CDLL, str]:
    """(the compiled source, what it was compiled from and for: a short name).

    Args:
      source: a C++ file; headers beside it are part of it. include: the folder of other headers that it wants.
      flags: for the processor; where the compiler does not know them, it is asked without.
    Raises:
      NoLibraryError: there is no compiler, or it fails, or the result cannot be loaded.
    """
    parts = [source.read_bytes(), *(header.read_bytes() for header in sorted(source.parent.glob("*.h")))]
    made_by = repr((_FLAGS, flags, os.environ.get(COMPILER_VARIABLE)))
    parts += [part.encode() for part in (made_by, version("jaxlib"), machine())]
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
    kept = cache_folder()
    if kept is not None:
        try:
            kept.mkdir(parents=True, exist_ok=True)
            found = _find(kept, f"{source.stem}-{name}") or _compile(source, include, flags, kept, name)
            return _open(found), name
        except OSError as error:  # a cache that cannot be written to is no reason to do without
            logger.info("compiled C++ cannot be kept: %s", error)
    with tempfile.TemporaryDirectory() as folder:
        return _open(_compile(source, include, flags, Path(folder), name)), name


def _find(folder: Path, stem: str) -> Path | None:
    for path in sorted(folder.glob(f"{stem}-*.so")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGEST]
        if path.stem == f"{stem}-{digest}":
            return path
        logger.info("%s is damaged: it is compiled again", path)
    return None


def _compile(source: Path, include: str, flags: tuple[str, ...], folder: Path, name: str) -> Path:
    """Compiles into ``folder``; the file is there whole or not at all, whoever else does the same."""
    compiler = _compiler()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".compiling-") as work:
        result = Path(work) / "library.so"
        command = [*compiler, *_FLAGS, *flags, f"-I{include}", str(source), "-o", str(result)]
        logger.info("compiling %s for this processor, once: %s", source.name, shlex.join(command))
        with compiling():
            said = _run(command)
            if said is not None and flags:
                said = _run([part for part in command if part not in flags])
        if said is not None:
            raise NoLibraryError(f"{compiler[0]} cannot compile {source.name}: {said}")
        digest = hashlib.sha256(result.read_bytes()).hexdigest()[:_DIGEST]
        target = folder / f"{source.stem}-{name}-{digest}.so"
        os.replace(result, target)
    return target


def _compiler() -> list[str]:
    chosen = os.environ.get(COMPILER_VARIABLE)
    if chosen:
        return shlex.split(chosen)
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        raise NoLibraryError(
            f"there is no C++ compiler ({', '.join(_COMPILERS)}; ${COMPILER_VARIABLE} may name one)"
        )
    return [found]


def _run(command: list[str]) -> str | None:
    """None: it did what it should. Else its first line of error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoLibraryError(str(error)) from error
