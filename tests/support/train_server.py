"""Starts `thinkprm train` again and again without importing everything again: what fifty starts in a test need.

A server process imports the program once and never touches a device. Each run is a fork of it, a real process
with its own id, that calls the command line. (JAX warns against forks of a process that has devices; this one has
none.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support import processes


class Run:
    """One started `thinkprm train`. said(): its stderr so far."""

    def __init__(self, server: TrainServer, pid: int, errors: Path) -> None:
        self._server, self.pid, self._errors, self._status = server, pid, errors, None

    def said(self) -> str:
        return " ".join(self._errors.read_text(encoding="utf-8").split())

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None: still running."""
        if self._status is None:
            self._status = self._server.ask(poll=self.pid)["status"]
        return self._status

    def wait(self, timeout: float = 300.0) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"still running after {timeout} s: {self.said()}"
            time.sleep(0.005)
        return status

    def finish(self) -> str:
        """Waits for success; what it said."""
        assert self.wait() == 0, self.said()
        return self.said()


class TrainServer:
    """Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        environment = processes.environment(None, THINKPRM_JAX_CACHE=str(folder / "cache"))
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self, recipe: Path, *overrides: str, devices: int = 1, file_size: int | None = None, **environment: str
    ) -> Run:
        """``file_size``: no file may grow beyond so many bytes: a full disk."""
        self._count += 1
        errors = self._folder / f"errors_{self._count}.txt"
        flags = processes.environment(devices)["XLA_FLAGS"]
        answer = self.ask(
            arguments=["train", str(recipe), *overrides],
            errors=str(errors),
            environment=environment | {"XLA_FLAGS": flags},
            file_size=file_size,
        )
        return Run(self, answer["pid"], errors)

    def start_together(
        self, count: int, recipe: Path, *overrides: str, devices: int, **environment: str
    ) -> list[Run]:
        """One run in so many processes over loopback, of so many devices each."""
        address = processes.free_address()
        return [
            self.start(
                recipe,
                *overrides,
                devices=devices,
                JAX_COORDINATOR_ADDRESS=address,
                JAX_NUM_PROCESSES=str(count),
                JAX_PROCESS_ID=str(process),
                **environment,
            )
            for process in range(count)
        ]

    def __enter__(self) -> TrainServer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answers one question a line until its input ends; then kills what still runs."""
    import optax.contrib  # noqa: F401

    import thinkprm_jax.checkpoint.training_state
    import thinkprm_jax.train.sft
    import thinkprm_jax.training.setup  # noqa: F401

    running: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        if "poll" in question:
            ended, status = os.waitpid(question["poll"], os.WNOHANG)
            running.discard(ended)
            print(json.dumps({"status": os.waitstatus_to_exitcode(status) if ended else None}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            return run(question)
        running.add(pid)
        print(json.dumps({"pid": pid}), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return None


def run(question: dict[str, Any]) -> None:
    import resource

    errors = os.open(question["errors"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.environ.update(question["environment"])
    if question["file_size"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (question["file_size"], resource.RLIM_INFINITY))
    from thinkprm_jax import cli

    sys.exit(cli.main(question["arguments"]))


if __name__ == "__main__":
    serve()
