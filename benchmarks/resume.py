"""How long `thinkprm score` takes to find out that there is nothing left to do, and what memory it needs for it.

    python benchmarks/resume.py --rows 1000000 --bytes 700
    python benchmarks/resume.py --rows 1000000 --bytes 15000 --folder /large/disk

An output of so many rows is written with its index, as a run leaves it; no model judges anything. Then the
command is given again: after the run had ended; after a kill (the index has no seal, so all bytes, at most 4 GiB,
are looked at); and, with --rebuild, without an index, when every row is read and the index is written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from thinkprm_jax.infer.score import RESERVED, parse
from thinkprm_jax.infer.score_report import count_row
from thinkprm_jax.infer.verifier_options import choose_verifier
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.records.jsonl import write_line
from thinkprm_jax.records.output import LazyInputs, OrderedOutput
from thinkprm_jax.records.verdicts import ChainRecord, VerdictRecord, VerdictRow
from thinkprm_jax.verifier.registry import current_stamp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=700, help="of a row of the output, about")
    parser.add_argument("--folder", type=Path, help="where the files go, and stay (default: a temporary one)")
    parser.add_argument("--rebuild", action="store_true", help="also without an index")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options.rows, options.bytes, options.rebuild)


def measure(folder: Path, rows: int, size: int, rebuild: bool) -> None:
    given, output = folder / "in.jsonl", folder / "out.jsonl"
    write_input(given, rows)
    began = time.monotonic()
    write_output(given, output, size)
    index = output.with_name("out.jsonl.index")
    print(
        f"{rows:,} rows, output {output.stat().st_size / 1e9:.2f} GB, index {index.stat().st_size / 1e6:.2f} MB, "
        f"written in {time.monotonic() - began:.0f} s",
        flush=True,
    )
    resume("after the end", given, output)
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join(line for line in lines if not line.startswith(b'{"seal"')))
    resume("after a kill", given, output)
    if rebuild:
        index.unlink()
        resume("without an index", given, output)
        resume("once more", given, output)


def write_input(path: Path, rows: int) -> None:
    with open(path, "wb") as file:
        for number in range(rows):
            row = {"id": number, "problem": f"{number} + 1?", "steps": [f"{number} + 1 = {number + 1}"]}
            file.write(write_line(row))


def write_output(given: Path, output: Path, size: int) -> None:
    """As a run of the bundled model would leave it, with chains of another length. The lines are put together
    here: a row that goes through OrderedOutput.add takes as long as a hundred of these."""
    stamp = choose_verifier(parse(["--output", str(output)])).stamp
    chain = ChainRecord("x" * max(size - 600, 10), 0.5, (1,), (0.5,), (False,), "stop", 20, contradictory=False)
    verdict = VerdictRecord(0.5, (0.5,), (1,), chains=(chain,))
    with SolutionFile(given, RESERVED, check=False) as rows, open(given, "rb") as lines:
        rows.solutions = len(rows)
        inputs = LazyInputs(len(rows), lambda index: rows[index].row, rows.identity)
        made = VerdictRow(rows[0], (verdict,), stamp)
        end, counts = write_line({**made.to_dict()})[len(write_line(rows[0].row)) - 2 :], count_row(made)
        with OrderedOutput(output, VerdictRow, inputs, {"verifier": stamp}, current_stamp, tally=count_row) as out:
            assert out._index is not None
            for line in lines:
                row = line[:-2] + end
                out._files[0].append(row)
                out._index.add(row, counts)


def resume(what: str, given: Path, output: Path) -> None:
    """A line: seconds and peak memory of the program, from its start to its end."""
    command = [sys.executable, "-m", "thinkprm_jax.cli", "score", str(given), "--output", str(output)]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--model", "mini"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or "are judged already" not in said:
        raise SystemExit(said)
    figures = {
        "seconds": round(time.monotonic() - began, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    print(f"{what}: {json.dumps(figures)}", flush=True)


if __name__ == "__main__":
    main()
