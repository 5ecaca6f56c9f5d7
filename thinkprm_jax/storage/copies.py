"""Folders between stores and this machine: models come down into a cache, exports go up."""

from __future__ import annotations

import atexit
import collections
import contextlib
import fnmatch
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from thinkprm_jax.caches import CACHE_VARIABLE, chosen_cache, user_cache
from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import stores
from thinkprm_jax.storage.location import ObjectPath
from thinkprm_jax.storage.reading import BLOCK

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_AT_ONCE = 8  # blocks on their way
_SAY_SECONDS = 5.0
Say = Callable[[str], None]


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def local_copy(place: ObjectPath, patterns: Sequence[str] = ("*",), say: Say = say_on_stderr) -> Path:
    """A file, or the files of a folder that fit one of ``patterns``, on this machine.

    They are kept in the user's cache folder (`thinkprm_jax/files`, or $THINKPRM_JAX_CACHE/files; with `off` in a
    temporary folder until the process ends), a folder for each state of what is there: what was written again is
    fetched again, and what a process reads never changes under it. Files that a killed process had whole are not
    fetched again. Several processes of one machine fetch once.

    Args:
      say: is given a line where something is fetched, and every few seconds.
    Returns: the folder, or the file in it, under its own name.
    Raises:
      UserError: there is nothing, or it cannot be read; or the cache cannot be written.
    """
    facts = stores.describe(str(place))
    if facts is None:
        raise UserError(f"{place}: no such file or folder")
    if not facts.is_folder:
        return _fetched(place.parent, {place.name: facts}, say) / place.name
    found = stores.facts_below(str(place))
    wanted = {name: fact for name, fact in found.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)}
    if not wanted:
        raise UserError(f"{place}: holds none of {', '.join(patterns)}")
    return _fetched(place, wanted, say)


def upload_folder(folder: Path, place: ObjectPath, last: Collection[str] = ()) -> None:
    """All files of a folder. A store cannot show them all at once: those named ``last``, without which the others
    are nothing, are deleted there first and written at the end.

    Raises:
      UserError: the store does not take one.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [file.relative_to(folder).as_posix() for file in files]
    for name in last:
        (place / name).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name in last):
        stores.put_file(str(place / name), str(folder / name))


def _fetched(place: ObjectPath, wanted: dict[str, stores.ObjectFacts], say: Say) -> Path:
    """The folder in the cache that holds these files of ``place``."""
    state = repr((str(place), sorted((name, fact.size, fact.version) for name, fact in wanted.items())))
    folder = _cache() / hashlib.sha256(state.encode()).hexdigest()[:24]
    if folder.is_dir():
        return folder
    total, done, said = sum(fact.size for fact in wanted.values()), 0, time.monotonic()
    try:
        with _alone(folder.with_suffix(".lock")):
            if folder.is_dir():  # another process was quicker
                return folder
            say(f"{place}: fetching {len(wanted)} files, {total / 1e6:,.1f} MB, into {folder}")
            work = folder.with_suffix(".partial")
            for name, fact in sorted(wanted.items()):
                target = work / name
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    for size in _fetch(place / name, fact, target):
                        if time.monotonic() - said >= _SAY_SECONDS:
                            said = time.monotonic()
                            say(f"{place}: {(done + size) / 1e6:,.1f} of {total / 1e6:,.1f} MB")
                done += fact.size
            work.rename(folder)
    except OSError as error:
        why = error.strerror or error
        raise UserError(
            f"{place}: cannot be kept in {folder} ({why}); ${CACHE_VARIABLE} chooses another"
        ) from error
    return folder


def _fetch(place: ObjectPath, fact: stores.ObjectFacts, target: Path) -> Iterator[int]:
    """One file, whole or absent; several blocks at once. Yields the bytes that are there."""
    url = str(place)
    work = target.with_name(f".{target.name}.tmp")
    with open(work, "wb") as file, ThreadPoolExecutor(_AT_ONCE) as pool:
        coming: collections.deque[Future[bytes]] = collections.deque()
        for start in range(0, fact.size, BLOCK):
            coming.append(pool.submit(stores.read_range, url, start, min(start + BLOCK, fact.size)))
            if len(coming) == _AT_ONCE:
                file.write(coming.popleft().result())
                yield file.tell()
        while coming:
            file.write(coming.popleft().result())
            yield file.tell()
    if work.stat().st_size != fact.size or stores.describe(url) != fact:
        raise UserError(f"{place}: was written again while it was read")
    os.replace(work, target)


def _cache() -> Path:
    chosen = chosen_cache()
    if chosen is None:
        return _until_the_end()
    root = Path(chosen).expanduser() if chosen else user_cache() / "thinkprm_jax"
    return root / "files"


@functools.cache
def _until_the_end() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="thinkprm-files-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process of this machine at a time; the others wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "ab") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
