"""Which process works on which part of a job, said in files: claims are made once, kept alive, and taken over.

    CLAIMS/00003.0001    the first claim on part 3: who holds it, and a count that grows while that process lives
    CLAIMS/00003.0002    the second one: the first holder was dead, or gave the part back

A claim is a file that must not be there before, which a file system and an object store decide: of several
processes one gets it. The highest number holds the part. A holder that was taken for dead and is not writes into
files of its own number, which nobody reads any more. Clocks of different machines are never compared: a claim is
dead when its file has not changed for so long while somebody looked on, or at once where its process ran on this
machine and has ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.files import atomic_write
from thinkprm_jax.storage import Location
from thinkprm_jax.storage.stores import put_bytes

LEASE_SECONDS = 60.0  # without a sign of life, after which a claim is dead
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system without hard links
_BEATS = 6  # signs of life in that time


def create_whole(place: Location, content: bytes) -> bool:
    """Writes a file that is not there yet, whole; whether it was so. Of several writers one succeeds."""
    if not isinstance(place, Path):
        try:
            put_bytes(str(place), content, new=True)
        except FileExistsError:
            return False
        return True
    work = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        work.write_bytes(content)
        try:
            os.link(work, place)  # in one go, and not over another
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with open(place, "xb") as file:
                file.write(content)
        finally:
            work.unlink(missing_ok=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"{place}: cannot be written: {error.strerror or error}") from error
    return True


@dataclass
class Claim:
    """A part that this process holds.

    Attributes:
      number: from 1, of the claims on this part. lost: another process has taken it over.
      done: rows, for others to see.
    """

    part: int
    number: int
    place: Location
    lost: bool = False
    done: int = 0
    beat: int = 0


@dataclass
class _Seen:
    content: Mapping[str, Any]
    since: float


@dataclass
class Holder:
    """Of a claim, as it stands in its file."""

    host: str
    done: int
    released: bool
    content: Mapping[str, Any] = field(default_factory=dict)


class Claims:
    """The claims of a job, in a folder.

    Example:

        with Claims(folder) as claims:
            claim = claims.take(3)
            if claim is not None:
                ...
                claims.release(claim)

    Args:
      seconds: without a sign of life, after which a claim is dead.
      clock: seconds.
    """

    def __init__(self, folder: Location, seconds: float = LEASE_SECONDS, clock: Any = time.monotonic) -> None:
        self._folder, self._seconds, self._clock = folder, seconds, clock
        self._me = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "born": _born("self")}
        self._seen: dict[tuple[int, int], _Seen] = {}
        self._held: dict[int, Claim] = {}
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def holders(self, without: Collection[int] = ()) -> dict[int, tuple[int, Holder]]:
        """Part -> (number of its last claim, who made it); ``without``: of these nobody wants to know."""
        last: dict[int, tuple[int, Location]] = {}
        for place in self._folder.iterdir() if self._folder.is_dir() else ():
            name = re.fullmatch(r"(\d+)\.(\d+)", place.name)
            if name is None or int(name[1]) in without:
                continue
            if int(name[2]) > last.get(int(name[1]), (0, place))[0]:
                last[int(name[1])] = int(name[2]), place
        found = {}
        with self._lock:
            for part, (number, place) in last.items():
                content = _read(place)
                seen = self._seen.get((part, number))
                if seen is None or seen.content != content:
                    self._seen[part, number] = _Seen(content, self._clock())
                holder = Holder(
                    str(content.get("host", "?")),
                    int(content.get("done", 0)),
                    bool(content.get("released")),
                    content,
                )
                found[part] = number, holder
        return found

    def is_free(self, part: int, number: int, holder: Holder) -> bool:
        """Whether a claim, as :meth:`holders` gave it, keeps nobody from the part."""
        if part in self._held and self._held[part].number == number:
            return False
        if holder.released:
            return True
        born = holder.content.get("born")
        if born and holder.content.get("machine") == self._me["machine"]:
            alive = _born(holder.content.get("pid")) == born
            return not alive or self._is_silent(part, number)
        return self._is_silent(part, number)

    def _is_silent(self, part: int, number: int) -> bool:
        seen = self._seen[part, number]
        return self._clock() - seen.since >= self._seconds

    def take(self, part: int, number: int = 0) -> Claim | None:
        """Claims a part of which ``number`` is the last claim, 0 for none; None where another was first."""
        claim = Claim(part, number + 1, self._folder / f"{part:05d}.{number + 1:04d}")
        if not create_whole(claim.place, self._content(claim)):
            return None
        with self._lock:
            self._held[part] = claim
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="thinkprm claims", daemon=True)
            self._thread.start()
        return claim

    def release(self, claim: Claim) -> None:
        """Gives a part back, done or not."""
        with self._lock:
            self._held.pop(claim.part, None)
            if not claim.lost:
                atomic_write(claim.place, self._content(claim, released=True))

    def _content(self, claim: Claim, released: bool = False) -> bytes:
        said = {**self._me, "beat": claim.beat, "done": claim.done, **({"released": True} if released else {})}
        return json.dumps(said).encode()

    def _live(self) -> None:
        """In a thread of its own: signs of life, and a look whether others have taken over."""
        while not self._over.wait(self._seconds / _BEATS):
            self.beat()

    def beat(self) -> None:
        with self._lock:
            held = list(self._held.values())
        for claim in held:
            with contextlib.suppress(
                UserError, OSError
            ):  # the next one may succeed; others wait for a whole lease
                if (self._folder / f"{claim.part:05d}.{claim.number + 1:04d}").exists():
                    claim.lost = True
                    continue
                with self._lock:
                    if claim.part in self._held:
                        claim.beat += 1
                        atomic_write(claim.place, self._content(claim))

    def close(self) -> None:
        """Gives back what is held."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        for claim in list(self._held.values()):
            with contextlib.suppress(UserError, OSError):
                self.release(claim)

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _read(place: Location) -> Mapping[str, Any]:
    try:
        content = json.loads(place.read_bytes())
    except (UserError, OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _machine() -> str:
    """Tells machines apart, and containers on one of them, whose processes have numbers of their own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _born(pid: Any) -> str:
    """When a process of this machine began, in ticks; "" where there is none, or nobody can tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if state in "ZX" else fields[18]
