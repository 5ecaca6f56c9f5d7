"""A Ray cluster: found or started, and what a replica takes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.errors import UserError, one_line

_USER_ERROR = re.compile(r"^(?:\w+\.)*UserError: (.+)$", re.MULTILINE)
OBJECT_BYTES = 512 * 2**20  # of a cluster for this run: blocks of rows that are on their way


@dataclass(frozen=True)
class RayOptions:
    """Where replicas run, and what each takes.

    Attributes:
      address: of a cluster; None: $RAY_ADDRESS, or a cluster of this machine alone, for this run.
      replicas: None: one for each machine, or as many as its accelerators are enough for.
      cpus, gpus: of a replica; parts of one, too.
      resources: other ones of a replica, by name (``{"TPU": 4}``).
    """

    address: str | None = None
    replicas: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.replicas is not None and self.replicas < 1:
            raise UserError(f"--replicas is {self.replicas}, it must be at least 1")
        amounts = {"--replica-cpus": self.cpus, "--replica-gpus": self.gpus}
        amounts |= {f"--replica-resources {name}": amount for name, amount in self.resources.items()}
        for name, amount in amounts.items():
            if not 0 <= amount < float("inf"):
                raise UserError(f"{name} is {amount}, it must be 0 or more")
            if amount > 1 and amount != int(amount):
                raise UserError(f"{name} is {amount}: above 1 Ray knows whole ones alone")

    @property
    def needs(self) -> dict[str, float]:
        """What a replica takes, as Ray names it."""
        every = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in every.items() if amount}


def import_ray() -> Any:
    """The module; UserError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers otherwise
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails is raised, too
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'thinkprm-jax[ray]'") from None
    for name in ("ray.data", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


def connect(ray: Any, address: str | None) -> None:
    """To a cluster, or starts one on this machine.

    Raises:
      UserError: there is none at that address.
    """
    own = is_own(address)
    address = "local" if own else address or os.environ["RAY_ADDRESS"]
    if own:  # its processes are this program's, and no less urgent
        os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray takes SIGTERM for itself; programs have their own way to end.
    before = signal.getsignal(signal.SIGTERM)
    try:
        with one_line_errors(), warnings.catch_warnings():
            # It starts programs, in which nothing of JAX goes on.
            warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({"include_dashboard": False, "object_store_memory": OBJECT_BYTES} if own else {}),
            )
    except (ConnectionError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--address {address}: {one_line(error)}") from None
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def is_own(address: str | None) -> bool:
    """Whether it is a cluster of this machine, for this run."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") == "local"


def count_replicas(ray: Any, options: RayOptions, grows: bool = True) -> int:
    """How many there are to be.

    Args:
      grows: machines may still come to the cluster.
    Raises:
      UserError: no machine of the cluster is large enough for one, or there is not room for all.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    rooms = [_room(resources, options.needs) for resources in nodes]
    if not any(rooms):
        needs = ", ".join(f"{amount:g} {name}" for name, amount in options.needs.items())
        have = {name: max(node.get(name, 0) for node in nodes) for name in options.needs}
        most = ", ".join(f"{amount:g} {name}" for name, amount in have.items())
        raise UserError(f"ray: a replica takes {needs}; a machine of this cluster has {most} at most")
    if options.replicas is not None:
        if options.replicas > sum(rooms) and not grows:
            raise UserError(f"--replicas is {options.replicas}: this machine has room for {sum(rooms)}")
        return options.replicas
    accelerators = [name for name in options.needs if name != "CPU"]
    return sum(rooms) if accelerators else sum(room > 0 for room in rooms)


def _room(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Replicas that a machine has room for."""
    return min((int(resources.get(name, 0) / amount + 1e-9) for name, amount in needs.items()), default=1)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """What Ray raises as a `UserError` of one line: that of a replica or reader, if it was one, or Ray's own."""
    from ray.exceptions import RayError

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found: BaseException | None = error
        for _ in range(20):
            if found is None:
                break
            if isinstance(found, UserError):
                raise UserError(str(found)) from None
            found = getattr(found, "cause", None) or found.__cause__ or found.__context__
        if said := _USER_ERROR.search(str(error)):  # in the text of what an actor died of
            raise UserError(said[1]) from None
        if isinstance(error, RayError):
            raise UserError(f"ray: {one_line(error)}") from error
        raise
