"""Which of several processes this is, where they share a job through files and never talk to each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from thinkprm_jax.distributed.rendezvous import find_launch
from thinkprm_jax.errors import UserError


@dataclass(frozen=True)
class Rank:
    """This process among the others; which one it is only says where it begins.

    Attributes:
      process, processes: the number of this one, from 0, of how many.
      source: who says so: "flags", "JAX_* variables", "SLURM", "SLURM array", "TPU"; "" of a process alone.
    """

    process: int = 0
    processes: int = 1
    source: str = ""


def find_rank(
    processes: int | None = None, process: int | None = None, environment: Mapping[str, str] = os.environ
) -> Rank:
    """What flags, or else $JAX_NUM_PROCESSES and $JAX_PROCESS_ID, a step of SLURM, an array of SLURM (and steps of
    its tasks) or the runtime of a TPU pod say.

    Args:
      processes, process: flags; None: not given. 1 process (also in $JAX_NUM_PROCESSES) is a process alone,
        whatever the environment says.
    Raises:
      UserError: half a description, or a number that is none.
    """
    if processes is not None or process is not None:
        if processes is None or (process is None and processes != 1):
            raise UserError("--processes N and --process I go together")
        if not 0 <= (process or 0) < processes:
            raise UserError(f"--process is {process}, of --processes {processes} they are 0 to {processes - 1}")
        return Rank(process or 0, processes, "flags")
    if environment.get("JAX_NUM_PROCESSES") == "1":
        return Rank()  # alone, whatever else is said
    if "JAX_NUM_PROCESSES" in environment and "JAX_COORDINATOR_ADDRESS" not in environment:
        environment = {**environment, "JAX_COORDINATOR_ADDRESS": "localhost:1"}  # nobody is called
    launch = find_launch(environment=environment)
    found = Rank() if launch is None else Rank(launch.process, launch.processes, launch.source)
    tasks = _number(environment, "SLURM_ARRAY_TASK_COUNT", 1)
    if tasks > 1 and found.source in ("", "SLURM"):
        first = _number(environment, "SLURM_ARRAY_TASK_MIN", 0)
        step = max(_number(environment, "SLURM_ARRAY_TASK_STEP", 1), 1)
        task = (_number(environment, "SLURM_ARRAY_TASK_ID", first) - first) // step % tasks
        return Rank(task * found.processes + found.process, tasks * found.processes, "SLURM array")
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if not found.source and len(hosts) > 1:
        return Rank(_number(environment, "TPU_WORKER_ID", 0), len(hosts), "TPU")
    return found


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r}, it must be a whole number")
    return int(text)
