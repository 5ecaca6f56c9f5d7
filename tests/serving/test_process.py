"""`thinkprm serve` as a process: it is ready when it says so, and ends as it was told to."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.processes import ROOT, environment, free_address
from support.serving import GOOD, ask
from thinkprm_jax.cli import main

pytestmark = pytest.mark.slow
CURL = ("curl", "-sS", "--max-time", "60")


@contextmanager
def started(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """(address, process) of a server that is ready."""
    host, port = free_address().split(":")
    command = [sys.executable, "-m", "thinkprm_jax.cli", "serve", "--port", port, "--max-length", "512", *options]
    process = subprocess.Popen(command, env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    address = f"http://{host}:{port}"
    try:
        deadline = time.monotonic() + 240
        while True:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            with suppress(OSError):
                if ask(address, "/ready")[0] == 200:
                    break
            time.sleep(0.1)
        yield address, process
    finally:
        process.kill()
        process.communicate()


def metric(address: str, name: str) -> float:
    _, _, text = ask(address, "/metrics")
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def test_what_runs_is_finished_and_what_comes_refused() -> None:
    with started("--warm-length", "0", "--slots", "4") as (address, process):
        said = subprocess.run([*CURL, f"{address}/v1/verify", "-d", json.dumps(GOOD)], capture_output=True)
        assert json.loads(said.stdout)["verdict"]["step_labels"] == [1, 1]
        running = subprocess.Popen(
            [*CURL, f"{address}/v1/verify", "-d", json.dumps({**GOOD, "n": 12, "temperature": 1})],
            stdout=subprocess.PIPE,
        )
        while not metric(address, "thinkprm_slots_busy"):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        while ask(address, "/ready")[0] == 200:
            time.sleep(0.01)
        status, headers, answer = ask(address, "/v1/verify", GOOD)
        assert (status, answer["error"]["type"]) == (503, "unavailable")
        assert headers["retry-after"]
        output, _ = running.communicate(timeout=60)
        assert len(json.loads(output)["verdict"]["chains"]) == 12
        assert process.wait(timeout=30) == 0


def test_an_end_has_a_deadline() -> None:
    with started("--warm-length", "0", "--slots", "2", "--drain-seconds", "0.5") as (address, process):
        body = json.dumps({**GOOD, "n": 400, "temperature": 50.0})
        running = subprocess.Popen([*CURL, f"{address}/v1/verify", "-d", body], stdout=subprocess.PIPE)
        while not metric(address, "thinkprm_slots_busy"):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=30) == 1
        assert time.monotonic() - began < 10
        output, _ = running.communicate(timeout=30)
        assert json.loads(output)["error"]["type"] == "unavailable"


def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.write_text("# none\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, said in (
            (["--port", port], "Address already in use"),
            (["--port", "99999"], "--port is 99999"),
            (["--api-key-file", str(empty)], "no key in it"),
            (["--max-steps", "0"], "--max-steps is 0"),
            (["--mesh", "data"], "--mesh data"),
            (["--model", str(tmp_path)], str(tmp_path)),
        ):
            assert main(["serve", *options]) == 2
            [line] = capsys.readouterr().err.strip().splitlines()
            assert said in line
