"""What all programs share: how a failure that is the user's business reaches the user, and how signals end them.

SIGINT (Ctrl-C) and SIGTERM (a preemption notice) raise :class:`Stopped` in the main thread: files are closed on
its way up, one line is printed, and the exit status is 130 or 143. While the main thread waits for a device it
does not hear that, so a thread of its own watches, and ends the process where the way up takes too long, or the
signal comes again. Whatever the moment, a run goes on from its files: they bear kill -9.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from thinkprm_jax.errors import UserError, one_line

Main = Callable[[Sequence[str]], int]  # arguments -> exit status

GRACE_SECONDS = 10.0  # from a signal to the end of the process, whatever is computed
AGAIN_SECONDS = 1.0  # a second signal ends the process at once; sooner it is the same one, sent twice
_LOST = b"\0"  # rings the bell where no signal does
# What the system says when a disk, a right or a limit of the user's is in the way.
_USERS_BUSINESS = {
    number
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "EMFILE", "ENAMETOOLONG")
    if (number := getattr(errno, name, None)) is not None
}


class Stopped(KeyboardInterrupt):
    """A signal came; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def run(main: Main, arguments: Sequence[str], name: str = "thinkprm", ends_process: bool = False) -> int:
    """Exit status of ``main``; a :class:`UserError` becomes one line on stderr and status 2. Any other exception
    is our mistake: its traceback and status 70, which no program gives for results that are only incomplete.

    Args:
      ends_process: :func:`end` comes next, so signals stay caught.
    """
    signals = _Signals(name)
    try:
        signals.catch()
        return _run(main, arguments, name)
    except KeyboardInterrupt as stop:
        signals.say_stopped()
        return 128 + getattr(stop, "number", signal.SIGINT)
    finally:
        signals.over(for_good=not ends_process)


def _run(main: Main, arguments: Sequence[str], name: str) -> int:
    try:
        status = main(arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (`| head`) has gone; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _USERS_BUSINESS:
            traceback.print_exc()
            return 70
        place = f"{error.filename}: " if error.filename else ""
        print(f"{name}: error: {place}{error.strerror}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 70


def start(main: Main, name: str) -> NoReturn:
    """A program as a process: runs ``main`` with the arguments of the command line, and ends with its status."""
    end(run(main, sys.argv[1:], name, ends_process=True))


def end(status: int) -> NoReturn:
    """Ends the process.

    After a failure or a signal at once: a thread may still be computing on a device, and an interpreter that is
    taken down meanwhile crashes. All files are closed by then.
    """
    if status in (0, 1):
        sys.exit(status)
    leave(status)


def leave(status: int) -> NoReturn:
    """Ends the process at once, whatever other threads do."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


class _Signals:
    """Catches SIGINT and SIGTERM while a program runs. Where a signal is ignored already (nohup, a background job)
    it stays so; in another thread than the main one nothing can be caught."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._previous: dict[int, Any] = {}
        self._heard = self._over = self._said = False
        self._bell: socket.socket | None = None
        self._bell_before = -1
        self._unraisable_before = sys.unraisablehook

    def catch(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(ear,), name="thinkprm signals", daemon=True).start()
        sys.unraisablehook = self._lose
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._hear)

    def over(self, for_good: bool) -> None:
        """The program has ended; ``for_good``: the process goes on."""
        self._over = True
        if not for_good or self._bell is None:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._unraisable_before
        signal.set_wakeup_fd(self._bell_before)
        self._bell.close()

    def say_stopped(self) -> None:
        if not self._said:
            self._said = True
            print(f"{self._name}: stopped", file=sys.stderr, flush=True)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two of its bytecodes."""
        if not self._heard and not self._over:
            self._heard = True
            raise Stopped(number)

    def _lose(self, lost: sys.UnraisableHookArgs) -> None:
        """Where the handler raised in a callback of the garbage collector or the like, Python drops what it
        raised: it is to be raised again."""
        if issubclass(lost.exc_type, Stopped) and self._bell is not None:
            self._bell.send(_LOST)
        else:
            self._unraisable_before(lost)

    def _watch(self, ear: socket.socket) -> None:
        """In a thread of its own, at once."""
        first, began, echoes = 0, 0.0, 0
        with ear:
            while True:
                left = max(began + GRACE_SECONDS - time.monotonic(), 0.0) if first else None
                if not select.select([ear], [], [], left)[0]:
                    self._leave(first)
                rung = ear.recv(64)
                if not rung:
                    return
                # A program that handles a signal by itself (training saves a checkpoint) is left alone.
                for number in (n for n in rung.replace(_LOST, b"") if signal.getsignal(n) == self._hear):
                    if not first:
                        first, began = number, time.monotonic()
                    elif echoes:
                        echoes -= 1
                    elif time.monotonic() - began >= AGAIN_SECONDS:
                        self._leave(first)
                if _LOST in rung and first:
                    time.sleep(0.02)  # until the callback has ended
                    self._heard, echoes = False, echoes + 1
                    os.kill(os.getpid(), first)  # which rings the bell, too

    def _leave(self, number: int) -> NoReturn:
        text = b"" if self._said else f"{self._name}: stopped\n".encode(errors="replace")
        if os.isatty(2):
            text = b"\x1b[?25h" + text  # a progress bar hides the cursor
        with contextlib.suppress(OSError):
            os.write(2, text)
        os._exit(128 + number)
