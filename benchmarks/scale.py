"""How the cost of `thinkprm score` grows with its items, in one process, in two, and on Ray.

    python benchmarks/scale.py [--items 1000 10000] [--engines process shards ray] [--max-gen-tokens 16]

Each run is a program of its own, with the bundled model, on short items of the synthetic task and with short
chains, so that what surrounds the model weighs as much as it can: reading, writing, the engine. Printed are, for
each run, seconds of the wall, CPU seconds of all its processes (on a machine that does other work only these
compare), and the largest memory of all of them together: what each has of its own and its part of what they share
(PSS). In the end the cost of an item between the smallest and the largest input, and beside that of one process.
Needs the `ray` extra for ray.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
ENGINES = {
    "process": [[]],
    "shards": [["--shard", "0/2"], ["--shard", "1/2"]],
    "ray": [["--engine", "ray", "--replicas", "2"]],
}


@dataclass
class Cost:
    """Of a run: seconds of the wall and of all CPUs, and bytes."""

    wall: float
    cpu: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--max-gen-tokens", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    options = parser.parse_args()
    settings = ["--model", "mini", "--max-gen-tokens", str(options.max_gen_tokens)]
    settings += ["--max-length", str(options.max_length), "--quiet"]
    costs: dict[tuple[str, int], Cost] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_items(folder / "few.jsonl", 64)
        run(ENGINES["process"], folder / "few.jsonl", folder, settings)  # compiles
        print("engine      items    wall s     CPU s   ms CPU an item   largest memory MiB")
        for count in options.items:
            items = write_items(folder / f"{count}.jsonl", count)
            for engine in options.engines:
                cost = costs[engine, count] = run(ENGINES[engine], items, folder, settings)
                each = 1000 * cost.cpu / count
                memory = cost.memory / 2**20
                print(
                    f"{engine:8} {count:8,} {cost.wall:9.1f} {cost.cpu:9.1f} {each:16.2f} {memory:20.0f}",
                    flush=True,
                )
    few, many = min(options.items), max(options.items)
    if few == many:
        return
    slopes = {
        engine: (costs[engine, many].cpu - costs[engine, few].cpu) / (many - few) for engine in options.engines
    }
    for engine, slope in slopes.items():
        beside = f"; {slope / slopes['process'] - 1:+.1%} beside one process" if "process" in slopes else ""
        print(f"{engine}: {1000 * slope:.2f} ms of CPU an item between {few:,} and {many:,}{beside}")


def write_items(path: Path, count: int) -> Path:
    """Sums of two numbers, each another one, as JSON Lines."""
    pairs = ((a, b) for total in itertools.count(2) for a in range(1, total) for b in (total - a,))
    with open(path, "w") as file:
        for number, (a, b) in enumerate(itertools.islice(pairs, count)):
            said = a + b + (number % 2)  # every other one is wrong
            row = {"id": number, "problem": f"What is {a} + {b}?", "steps": [f"{a} + {b} = {said}."]}
            file.write(json.dumps(row) + "\n")
    return path


def run(parts: Sequence[Sequence[str]], items: Path, folder: Path, settings: Sequence[str]) -> Cost:
    """Programs that share the items; fails where one of them does, or a row is missing."""
    outputs = [folder / f"out{number}.jsonl" for number in range(len(parts))]
    for output in outputs:
        for left in output.parent.glob(f"{output.name}*"):
            left.unlink()
    command = [sys.executable, "-m", "thinkprm_jax.cli", "score", str(items), *settings]
    began = time.monotonic()
    programs = [
        subprocess.Popen([*command, *part, "--output", str(output)])
        for part, output in zip(parts, outputs, strict=True)
    ]
    seen: dict[tuple[int, int], float] = {}  # (process, when it began) -> CPU seconds
    memory = 0.0
    while any(program.poll() is None for program in programs):
        time.sleep(0.25)
        found = list(descendants(os.getpid()))
        for process in found:
            if (read := cpu_seconds(process)) is not None:
                began_at, seconds = read
                seen[process, began_at] = seconds
        memory = max(memory, sum(map(proportional_bytes, found)))
    wall = time.monotonic() - began
    assert all(program.returncode == 0 for program in programs)
    rows = sum(output.read_bytes().count(b"\n") for output in outputs)
    assert rows == items.read_bytes().count(b"\n"), rows
    return Cost(wall, sum(seen.values()), memory)


def descendants(root: int) -> Iterator[int]:
    """Processes below this one."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (parent := _parent(folder)) is not None:
            children.setdefault(parent, []).append(int(folder.name))
    left = children.get(root, [])
    while left:
        process = left.pop()
        yield process
        left += children.get(process, [])


def _stat(folder: Path) -> list[str] | None:
    """Fields of /proc/PID/stat behind the name, which may have blanks."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return None


def _parent(folder: Path) -> int | None:
    fields = _stat(folder)
    return None if fields is None else int(fields[1])


def cpu_seconds(process: int) -> tuple[int, float] | None:
    """(when it began, what it has used)."""
    fields = _stat(Path(f"/proc/{process}"))
    return None if fields is None else (int(fields[19]), (int(fields[11]) + int(fields[12])) / TICKS)


def proportional_bytes(process: int) -> float:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((1024.0 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0.0)


if __name__ == "__main__":
    main()
