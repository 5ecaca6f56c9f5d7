"""Processes of their own, for what only a process can show: several devices, a kill, a clean start."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def environment(devices: int | None = 1, **variables: str) -> dict[str, str]:
    """Ours, with so many CPU devices, and with the modules of the project and of its tests to be imported.

    devices: None where the program itself says how many.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if devices is not None:
        flags += f" --xla_force_host_platform_device_count={devices}"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths} | variables


def start(program: str, *arguments: object, devices: int | None = 1, **variables: str) -> subprocess.Popen[str]:
    """Python text in a new process."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment(devices, **variables),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes: Sequence[subprocess.Popen[str]], timeout: float = 600.0) -> list[str]:
    """What they print; fails if one of them fails, and leaves none behind."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-5000:]
    return [output for output, _ in outputs]


def answers(processes: Sequence[subprocess.Popen[str]]) -> list[Any]:
    """The JSON in the last line that each prints."""
    return [json.loads(output.splitlines()[-1]) for output in finish(processes)]


def answer(program: str, *arguments: object, devices: int | None = 1, **variables: str) -> Any:
    """The JSON in the last line that the program prints."""
    (found,) = answers([start(program, *arguments, devices=devices, **variables)])
    return found


def free_address() -> str:
    """HOST:PORT on loopback at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
