"""Worker processes that do the algebra, with a limit on each task that holds even inside sympy.

A signal cannot stop sympy: its handler waits for C code (a power of two big integers) to return, is swallowed by
an `except Exception` on its way, and works in the main thread only. So the algebra runs in child processes; one
that is late is killed, and the next task gets a new one. The children stay warm between tasks.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any

from thinkprm_jax.errors import UserError

MOST_WORKERS = 4
STARTUP_LIMIT = 120.0  # seconds for importing sympy, on a machine that is busy with a training
_TASKS_A_WORKER = 16  # below, starting another worker takes longer than it saves
_MODULE = "thinkprm_jax.grading.worker"


class _Worker:
    """One child process. Used by one thread at a time."""

    def __init__(self) -> None:
        """Starts the child and waits until it has loaded. Raises UserError where it cannot."""
        # The child finds what the parent finds; with a fixed hash seed sympy orders terms the same in each run.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
            start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        hello = self._receive(STARTUP_LIMIT)
        if hello is None or "ready" not in hello:
            self.kill()
            reason = (hello or {}).get("missing") or f"its worker ended with status {self._process.returncode}"
            raise UserError(f"comparing maths needs math-verify (pip install math-verify): {reason}")

    def run(self, task: str, arguments: Mapping[str, Any], limit: float) -> tuple[bool, Any]:
        """(whether the child replied within `limit` seconds, its result). After False the child is dead."""
        request = json.dumps({"task": task, "arguments": arguments, "limit": limit})
        try:
            self._requests.write(request.encode("ascii") + b"\n")
            self._requests.flush()
            reply = self._receive(limit)
        except OSError:  # it died, of memory or a crash in C
            reply = None
        if reply is None:
            self.kill()
            return False, None
        return True, reply["result"]

    def _receive(self, limit: float) -> dict[str, Any] | None:
        if not wait([self._replies.fileno()], limit):
            return None
        line = self._replies.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._replies):
            with contextlib.suppress(OSError):  # a request that was never read
                pipe.close()


class WorkerPool:
    """Up to `size` workers, started when they are first needed. Any thread may call it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._begin()

    def _begin(self) -> None:
        self.cut = 0  # tasks that ended by the limit or with their worker, since the pool was made
        self._free = threading.Semaphore(self.size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def run(self, task: str, arguments: Mapping[str, Any], limit: float) -> Any:
        """The result of one task; None where it was cut or failed. Raises UserError without math-verify."""
        with self._free:
            worker = self._take_idle() or _Worker()
            finished = False
            try:
                finished, result = worker.run(task, arguments, limit)
            finally:
                with self._lock:
                    if finished:
                        self._idle.append(worker)
                    else:
                        self.cut += 1
                if not finished:
                    worker.kill()  # also when this thread was interrupted: half a conversation is no use
        return result

    def _take_idle(self) -> _Worker | None:
        """A worker that waits for a task; one that died meanwhile (the system ran out of memory) is left out."""
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or worker.is_alive():
                return worker
            worker.kill()

    def run_many(self, task: str, arguments: Sequence[Mapping[str, Any]], limit: float) -> list[Any]:
        """The results of many tasks, in order, on as many workers as they are worth."""
        threads = min(self.size, 1 + len(arguments) // _TASKS_A_WORKER)

        def one(each: Mapping[str, Any]) -> Any:
            return self.run(task, each, limit)

        if threads == 1:
            return [one(each) for each in arguments]
        with ThreadPoolExecutor(threads, thread_name_prefix="answers") as executor:
            return list(executor.map(one, arguments))

    def close(self) -> None:
        """Ends the idle workers; the pool starts new ones when it is used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def forget(self) -> None:
        """After a fork, in the child: the workers belong to the parent."""
        self._begin()


_pool: WorkerPool | None = None
_pool_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """The pool of this process."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = WorkerPool(min(MOST_WORKERS, os.cpu_count() or 1))
            atexit.register(_pool.close)
        return _pool


def _after_fork() -> None:
    global _pool_lock
    _pool_lock = threading.Lock()
    if _pool is not None:
        _pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
