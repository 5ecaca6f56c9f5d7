"""The processes of one run: how they find each other, and how each notices at once when another has ended.

``jax.distributed`` answers a mistake at the start (an id given twice, a coordinator that is not there) by aborting
with a stack trace, and learns of an ended process when heartbeats are missing, minutes later. So all processes
first report to process 0 over TCP, on the coordinator's own address. These connections stay open: the kernel
closes them when a process ends, however it ends, and process 0 tells the others. Nothing here needs JAX.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from thinkprm_jax.errors import UserError

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_GREETING = "thinkprm"


@dataclass(frozen=True)
class Launch:
    """This process among the others. address: `host:port` on which process 0 listens, the same for all.

    local_devices: the devices of this host that are this process's; None: all that it sees.
    """

    address: str
    processes: int
    process: int
    source: str
    local_devices: list[int] | None = None

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UserError(f"{self.source}: the coordinator must be HOST:PORT, not {self.address!r}")
        if not 0 <= self.process < self.processes:
            raise UserError(
                f"{self.source}: there is no process {self.process} of {self.processes}; ids begin with 0"
            )

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


def find_launch(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Launch | None:
    """What flags, $JAX_COORDINATOR_ADDRESS, $JAX_NUM_PROCESSES, $JAX_PROCESS_ID, or else SLURM say.

    None: nothing there speaks of several processes. Raises :class:`UserError` for half a description.
    """
    given = [coordinator, processes, process]
    for i, name in enumerate(_VARIABLES):
        if given[i] is None and environment.get(name):
            given[i] = environment[name]
    if any(value is not None for value in given):
        missing = [name for name, value in zip(_VARIABLES, given, strict=True) if value is None]
        source = "flags" if not any(environment.get(name) for name in _VARIABLES) else "JAX_* variables"
        if missing:
            raise UserError(f"several processes: {', '.join(missing)} not given; all three or none")
        launch = Launch(str(given[0]), _whole(given[1], source), _whole(given[2], source), source)
        return launch if launch.processes > 1 else None
    if all(name in environment for name in _SLURM) and _whole(environment["SLURM_NTASKS"], "SLURM") > 1:
        return _slurm(environment)
    return None


def _whole(value: Any, source: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"{source}: {value!r} is no whole number") from None


def _slurm(environment: Mapping[str, str]) -> Launch:
    """One process for each task of the step. The first host leads, on a port that follows from the job's id."""
    # "node[007-015,020],other" -> node007; "a,b" -> a
    first = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", environment["SLURM_STEP_NODELIST"])
    if first is None:
        raise UserError(f"SLURM: no host in SLURM_STEP_NODELIST {environment['SLURM_STEP_NODELIST']!r}")
    job = _whole(environment["SLURM_JOB_ID"], "SLURM")
    address = f"{first[1]}{first[2] or ''}:{61440 + job % 4096}"
    # Several tasks on a host share its GPUs, one each, unless SLURM has already bound them.
    on_host = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    shared = on_host is not None and int(on_host[0]) > 1
    bound = len(environment.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")) == 1
    local = [_whole(environment["SLURM_LOCALID"], "SLURM")] if shared and not bound else None
    tasks, task = (_whole(environment[name], "SLURM") for name in ("SLURM_NTASKS", "SLURM_PROCID"))
    return Launch(address, tasks, task, "SLURM", local)


class _Link:
    """One connection: a JSON object a line in both directions."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self.host, self.ended = connection, "", False
        self._lines = connection.makefile("r", encoding="utf-8", errors="replace", newline="\n")
        self._writing = threading.Lock()

    def send(self, **message: Any) -> None:
        with self._writing, contextlib.suppress(OSError):  # whoever reads this link sees that it has ended
            self.socket.sendall((json.dumps(message) + "\n").encode())

    def receive(self, timeout: float | None) -> dict[str, Any]:
        """The next message; {} where the other side has ended, is silent for too long or makes no sense."""
        self.socket.settimeout(timeout)
        try:
            message = json.loads(self._lines.readline() or "{}")
        except (OSError, ValueError):
            message = {}
        return message if isinstance(message, dict) else {}

    def keep_alive(self) -> None:
        """A host that vanished (no power, no network) is noticed after half a minute."""
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                self.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


def rendezvous(launch: Launch, timeout: float) -> dict[int, _Link]:
    """Returns when all processes have reported: process 0's links by process, or the one link to process 0.

    Raises:
      UserError: an id is given twice, numbers disagree, somebody has not come after ``timeout`` seconds; the same
        line in every process that can still be told.
    """
    return _lead(launch, timeout) if launch.process == 0 else {0: _join(launch, timeout)}


def _lead(launch: Launch, timeout: float) -> dict[int, _Link]:
    port, deadline = launch.host_and_port[1], time.monotonic() + timeout
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=dual)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"process 0 cannot listen on port {port} ({reason}): does another process 0 run on this host?"
        ) from None
    links: dict[int, _Link] = {}
    with server:
        while len(links) < launch.processes - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = ", ".join(str(i) for i in range(1, launch.processes) if i not in links)
                raise _refuse(
                    links, f"waited {timeout:.0f} s for process {missing} of {launch.processes}"
                ) from None
            link = _Link(connection)
            hello = link.receive(timeout=5.0)
            if hello.get("greeting") != _GREETING:
                link.close()  # not one of ours
                continue
            number, link.host = hello["process"], hello["host"]
            if hello["of"] != launch.processes:
                numbers = f"{hello['of']} processes, process 0 of {launch.processes}"
                raise _refuse({**links, -1: link}, f"process {number} on {link.host} knows of {numbers}")
            if number in links:
                hosts = f"one on {links[number].host}, one on {link.host}"
                raise _refuse({**links, -1: link}, f"two processes have the id {number}: {hosts}")
            links[number] = link
    for link in links.values():
        link.keep_alive()
        link.send(start=True, host=socket.gethostname())
    return links


def _refuse(links: Mapping[int, _Link], problem: str) -> UserError:
    for link in links.values():
        link.send(error=problem)
    return UserError(problem)


def _join(launch: Launch, timeout: float) -> _Link:
    who, deadline = f"process {launch.process} of {launch.processes}", time.monotonic() + timeout
    while True:
        try:
            connection = socket.create_connection(launch.host_and_port, max(deadline - time.monotonic(), 0.01))
            if connection.getsockname() != connection.getpeername():  # TCP can connect a local port to itself
                break
            connection.close()
        except OSError as error:
            if time.monotonic() >= deadline:
                raise UserError(
                    f"{who}: no answer from the coordinator {launch.address} within {timeout:.0f} s "
                    f"({error.strerror or error}); process 0 listens there"
                ) from None
        time.sleep(0.2)
    link = _Link(connection)
    link.send(greeting=_GREETING, process=launch.process, of=launch.processes, host=socket.gethostname())
    answer = link.receive(max(deadline - time.monotonic(), 0.01) + 5.0)
    if not answer.get("start"):
        link.close()
        silent = (
            f"the coordinator {launch.address} gave no answer: is it a run that has started, or another program?"
        )
        raise UserError(f"{who}: {answer.get('error', silent)}")
    link.host = answer["host"]
    link.keep_alive()
    return link


def _leave_at_once(text: str) -> NoReturn:
    sys.stderr.write(f"thinkprm: error: {text}\n")  # one write: the runtime's threads write there too
    sys.stderr.flush()
    os._exit(1)  # a device may wait for the lost process for ever, so no clean-up can be waited for


class ProcessGroup:
    """Watches the other processes from a thread. When one ends before :meth:`leave`, this process says so in one
    line and ends with status 1: without that process no collective operation would ever finish."""

    def __init__(
        self, launch: Launch, links: dict[int, _Link], on_loss: Callable[[str], Any] = _leave_at_once
    ) -> None:
        self._launch, self._links, self._on_loss = launch, links, on_loss
        self._all_done, self._stopped = threading.Event(), False
        threading.Thread(target=self._watch, name="process group", daemon=True).start()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for number, link in self._links.items():
                selector.register(link.socket, selectors.EVENT_READ, number)
            while not self._all_done.is_set():
                for key, _ in selector.select():
                    if self._hear(key.data):
                        selector.unregister(key.fileobj)

    def _hear(self, number: int) -> bool:
        """Handles a message of ``number``; whether it was the last."""
        link = self._links[number]
        message = link.receive(None)
        if message.get("done"):
            link.ended = True
            if all(link.ended for link in self._links.values()):
                self._all_done.set()
            return True
        # Process 0 passes on who it was; else it was the other end of this link.
        lost = message.get("lost", number)
        host, reason = message.get("host", link.host), message.get("reason")
        for other in self._links.values():
            if other is not link and not self._stopped:
                other.send(lost=lost, host=host, reason=reason)
        if not self._stopped:
            self._on_loss(
                f"process {lost} on {host} has ended{f' ({reason})' if reason else ''}, so this one ends too; "
                "start all of them again to go on from the last checkpoint"
            )
        self._all_done.set()
        return True

    def leave(self) -> None:
        """The clean end: returns when all processes are here."""
        if self._launch.process:
            self._links[0].send(done=True)
        self._all_done.wait()
        if not self._launch.process:
            for link in self._links.values():
                link.send(done=True)

    def break_off(self, reason: str) -> None:
        """This process fails: the others end at once and say why."""
        self._stopped = True
        for link in self._links.values():
            link.send(lost=self._launch.process, host=socket.gethostname(), reason=reason)
            with contextlib.suppress(OSError):
                link.socket.shutdown(socket.SHUT_RDWR)
