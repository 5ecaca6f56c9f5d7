"""`thinkprm serve` under load, and under requests that make no sense.

    python benchmarks/serve.py load [--seconds 60] [--clients 64] [--items 512] [--model mini]
    python benchmarks/serve.py locust [--seconds 300] [--clients 64]
    python benchmarks/serve.py fuzz [--examples 60]

``load``: `thinkprm score`'s loop judges the items, in a process of its own and without a compilation in the time;
in turns with it so many clients ask a server for them, over and over, in another one. Every verdict is compared:
chains and labels must be the same, scores within 1e-5. What is printed: verdicts a second of both, those that are
lost or wrong, latencies, and the server's memory in each turn. ``locust``: the clients are locust's
(`pip install locust`; `benchmarks/locustfile.py` compares), without turns; the server's memory is printed over
time. ``fuzz``: schemathesis makes requests from the server's description, valid and malformed; counted are all
answers, those of 5xx, and slots that are still busy afterwards. Needs the `test` extra.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TOLERANCE = 1e-5  # of scores
Item = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "locust", "fuzz", "offline", "clients"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--max-length", type=int, default=4096)
    parser.add_argument("--warm-length", type=int, default=512)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load, all turns together")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--examples", type=int, default=60, help="requests of each kind and endpoint")
    parser.add_argument("--folder", type=Path, help="where offline and clients find each other")
    parser.add_argument("--address")
    options = parser.parse_args()
    programs = {
        "load": load,
        "locust": load_by_locust,
        "fuzz": fuzz,
        "offline": judge_offline,
        "clients": run_clients,
    }
    programs[options.what](options)


def load(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        beside = [*_passed(options), "--folder", folder]
        rates, found, memory = list[float](), list[dict[str, Any]](), list[list[float]]()
        with (
            offline(beside) as judge,
            server(options, "--warm-length", str(options.warm_length)) as (address, process),
        ):
            before = resident(process.pid)
            rates.append(judge())
            for _ in range(options.turns):
                clients = subprocess.Popen([sys.executable, __file__, "clients", "--address", address, *beside])
                memory.append([])
                while clients.poll() is None:
                    time.sleep(1)
                    memory[-1].append(resident(process.pid))
                assert clients.returncode == 0
                found.append(json.loads((Path(folder) / "clients.json").read_text()))
                rates.append(judge())
            late = metric(address, "thinkprm_late_compilations")
    served = [each["rate"] for each in found]
    # Each turn of the clients beside what was before and behind it, since a machine's speed drifts.
    ratios = [ours / statistics.mean(pair) for ours, pair in zip(served, itertools.pairwise(rates), strict=True)]
    total = {name: sum(each[name] for each in found) for name in ("asked", "answers", "lost", "wrong", "busy")}
    print(f"offline   {_several(rates)} verdicts/s, in turns with")
    print(f"served    {_several(served)} verdicts/s")
    print(f"ratio     {_several(ratios, 2)}; median {_median(ratios):.2f}")
    print("answers   {answers:,} of {asked:,} requests: {lost} lost, {wrong} wrong".format(**total))
    print(f"busy      {total['busy']} answers of 429, asked again")
    print(
        f"latency   median {_median([each['median'] for each in found]):.3f} s, "
        f"99th percentile {max(each['p99'] for each in found):.3f} s"
    )
    difference = max(each["difference"] for each in found)
    print(f"largest difference of a score {difference:.1e}; programs compiled meanwhile: {late:g}")
    print(f"memory    {before:.0f} MiB when ready; in each turn {_several([_median(each) for each in memory], 0)}")


def load_by_locust(options: argparse.Namespace) -> None:
    """Fails where a request is lost or wrong."""
    with tempfile.TemporaryDirectory() as folder:
        with offline([*_passed(options), "--folder", folder]):
            pass  # the verdicts are there
        with server(options, "--warm-length", str(options.warm_length)) as (address, process):
            command = [
                *(sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py"))),
                *("--headless", "--only-summary", "--host", f"http://{address}"),
                *("--users", str(options.clients), "--spawn-rate", str(options.clients)),
                *("--run-time", f"{options.seconds:g}s", "--stop-timeout", "30"),
            ]
            totals = Path(folder) / "totals.json"
            environment = os.environ | {
                "THINKPRM_VERDICTS": f"{folder}/offline.json",
                "THINKPRM_TOTALS": str(totals),
            }
            clients = subprocess.Popen(command, env=environment)
            memory = [resident(process.pid)]
            while clients.poll() is None:
                time.sleep(1)
                memory.append(resident(process.pid))
            late = metric(address, "thinkprm_late_compilations")
            busy = [metric(address, f"thinkprm_{name}") for name in ("slots_busy", "queue", "requests_running")]
        found = json.loads(totals.read_text())
    parts = [memory[len(memory) * i // 10 : len(memory) * (i + 1) // 10] for i in range(10)]
    over_time = _several(list(map(_median, parts)), 0)
    asked, failed = found["asked"], found["failed"]
    print(f"answers   {asked - failed:,} of {asked:,} requests as the offline verdict is: {found['failures']}")
    print(f"served    {found['rate']:.1f} verdicts/s; programs compiled meanwhile: {late:g}")
    print("latency   median {p50:.0f} ms, 99th percentile {p99:.0f} ms, at most {most:.0f} ms".format_map(found))
    print(f"memory    {memory[0]:.0f} MiB when ready; medians of tenths of the time {over_time}")
    print(f"afterwards busy slots, queue, requests: {busy}")
    sys.exit(clients.returncode or int(failed > 0 or any(busy)))


def _several(values: Sequence[float], digits: int = 1) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


_median = statistics.median


def _passed(options: argparse.Namespace) -> list[str]:
    names = ("model", "max_length", "slots", "items", "clients", "seconds", "turns")
    return [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]


def items(count: int) -> list[Item]:
    """Solutions of the bundled task, half of them with an error."""
    from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_task

    cases = arithmetic_task(0, "unseen", count).cases[:count]
    return [{"problem": case.problem, "steps": list(case.steps)} for case in cases]


def judge_offline(options: argparse.Namespace) -> None:
    """The verdicts of `thinkprm score`'s loop, which go to a file; then a pass and its seconds for every line of
    the input. Nothing is compiled in it."""
    from thinkprm_jax import load_verifier
    from thinkprm_jax.runtime import enable_compilation_cache

    enable_compilation_cache()
    prm = load_verifier(options.model, max_length=options.max_length, slots=options.slots)
    given = [(item["problem"], item["steps"]) for item in items(options.items)]
    for _ in range(2):
        verdicts = dict(prm.verify(given))
    rows = [
        {"problem": problem, "steps": steps, "verdict": verdicts[i].record().to_dict()}
        for i, (problem, steps) in enumerate(given)
    ]
    (options.folder / "offline.json").write_text(json.dumps(rows))
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        assert sum(1 for _ in prm.verify(given)) == len(given)
        print(time.perf_counter() - began, flush=True)


@contextmanager
def offline(arguments: Sequence[str]) -> Iterator[Callable[[], float]]:
    """What judges all items and says how many a second."""
    command = [sys.executable, __file__, "offline", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    reader, writer = process.stdout, process.stdin
    count = int(arguments[arguments.index("--items") + 1])

    def judge() -> float:
        writer.write("\n")
        writer.flush()
        return count / float(reader.readline())

    try:
        assert reader.readline() == "ready\n"
        yield judge
    finally:
        process.kill()
        process.wait()


@contextmanager
def server(options: argparse.Namespace, *more: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """(HOST:PORT, process) of a server that is ready."""
    command = [sys.executable, "-m", "thinkprm_jax.cli", "serve", "--port", "0", "--model", options.model]
    command += ["--max-length", str(options.max_length), "--slots", str(options.slots), *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        said = b""
        while (match := re.search(rb"http://(\S+)", said)) is None:
            line = process.stderr.readline()
            assert line, said.decode()
            said += line
        address = match.group(1).decode()
        began = time.perf_counter()
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://{address}/ready") as answer:
                if answer.status == 200:
                    break
            time.sleep(0.2)
        print(f"ready     after {time.perf_counter() - began:.1f} s")
        yield address, process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


def resident(pid: int) -> float:
    """MiB of memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


class Load:
    """Clients that ask for all items in turn, as fast as they are answered."""

    def __init__(self, address: str, rows: Sequence[dict[str, Any]], seconds: float) -> None:
        self._host, port = address.split(":")
        self._port, self._rows = int(port), rows
        bodies = [json.dumps({"problem": row["problem"], "steps": row["steps"]}).encode() for row in rows]
        head = (
            "POST /v1/verify HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
        )
        self._requests = [head.format(address, len(body)).encode() + body for body in bodies]
        self._seconds, self._next = seconds, 0
        self.asked = self.lost = self.wrong = self.busy = 0
        self.times: list[float] = []
        self.difference = 0.0

    async def run(self, clients: int) -> float:
        """Returns: seconds."""
        began = time.perf_counter()
        self._end = began + self._seconds
        await asyncio.gather(*(self._client() for _ in range(clients)))
        return time.perf_counter() - began

    async def _client(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        while time.perf_counter() < self._end:
            number = self._next % len(self._rows)
            self._next += 1
            self.asked += 1
            began = time.perf_counter()
            try:
                while True:
                    writer.write(self._requests[number])
                    status, content = await self._read(reader)
                    if status != 429:
                        break
                    self.busy += 1
                    await asyncio.sleep(0.5)
            except (OSError, asyncio.IncompleteReadError):
                self.lost += 1
                reader, writer = await asyncio.open_connection(self._host, self._port)
                continue
            self.times.append(time.perf_counter() - began)
            self._compare(status, content, self._rows[number]["verdict"])
        writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        return int(head.split(b" ", 2)[1]), await reader.readexactly(length)

    def _compare(self, status: int, content: bytes, expected: dict[str, Any]) -> None:
        found = json.loads(content).get("verdict")
        if status != 200 or found is None:
            self.lost += 1
            return
        alike, difference = compare(found, expected)
        self.difference = max(self.difference, difference)
        self.wrong += not alike


def compare(found: dict[str, Any], expected: dict[str, Any]) -> tuple[bool, float]:
    """(whether a verdict is the same as the offline one, the largest difference of a score)."""
    if "error" in found or "error" in expected:
        return found.get("error") == expected.get("error"), 0.0
    said = [
        ([chain["output"] for chain in each["chains"]], each["step_labels"], len(each["step_scores"]))
        for each in (found, expected)
    ]
    if said[0] != said[1]:
        return False, 0.0
    scores = zip(
        [found["prefix_score"], *found["step_scores"]],
        [expected["prefix_score"], *expected["step_scores"]],
        strict=True,
    )
    difference = max(abs(one - other) for one, other in scores)
    return difference <= TOLERANCE, difference


def run_clients(options: argparse.Namespace) -> None:
    rows = json.loads((options.folder / "offline.json").read_text())
    running = Load(options.address, rows, options.seconds / options.turns)
    seconds = asyncio.run(running.run(options.clients))
    times = sorted(running.times)
    found = {
        "rate": len(times) / seconds,
        "asked": running.asked,
        "answers": len(times),
        "lost": running.lost,
        "wrong": running.wrong,
        "busy": running.busy,
        "median": times[len(times) // 2],
        "p99": times[int(len(times) * 0.99)],
        "difference": running.difference,
    }
    (options.folder / "clients.json").write_text(json.dumps(found))


def fuzz(options: argparse.Namespace) -> None:
    """Fails where the server does."""
    with server(options, "--warm-length", "0", "--deadline", "30") as (address, process):
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"http://{address}/openapi.json"),
            *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(options.examples)),
            *("--mode", "all", "--continue-on-failure", "--request-timeout", "60", "--workers", "4"),
            *("--exclude-path", "/metrics", "--suppress-health-check", "all", "--seed", "1"),
        ]
        with tempfile.TemporaryDirectory() as folder:  # it leaves files where it runs
            environment = os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": folder}
            status = subprocess.run(command, env=environment, cwd=folder)
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        counts: Counter[str] = Counter()
        for line in lines:
            if (found := re.match(r'thinkprm_requests_total\{.*status="(\d+)"\} (\d+)', line)) is not None:
                counts[found.group(1)] += int(found.group(2))
        busy = [
            metric(address, name)
            for name in ("thinkprm_slots_busy", "thinkprm_queue", "thinkprm_requests_running")
        ]
        print(f"{sum(counts.values()):,} answers: {dict(sorted(counts.items()))}; busy afterwards: {busy}")
        assert process.poll() is None
        assert busy == [0, 0, 0]
        assert not any(name.startswith("5") and name not in ("503", "504") for name in counts)
    sys.exit(status.returncode)


if __name__ == "__main__":
    main()
