"""Thousands of damaged models, checkpoints, recipes and rows: each must be read, or refused in one line.

    python benchmarks/damaged_files.py --count 2000

No traceback, at most 5 s and 500 MB more than before for each; `tests/support/damage.py` says how they are
damaged. The cases run in a process of their own; where one ends it, it is named and the others go on.
"""

from __future__ import annotations

import argparse
import collections
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the process that reads
    options = parser.parse_args()
    if options.folder is not None:
        return read_cases(options.folder, options.first, options.count, options.only)
    start, number, bad, lines = time.monotonic(), options.first, 0, list[str]()
    with tempfile.TemporaryDirectory() as folder:
        while number < options.first + options.count:
            left = options.first + options.count - number
            command = [sys.executable, __file__, "--folder", folder, "--first", str(number), "--count", str(left)]
            reader = subprocess.run([*command, "--only", options.only], stdout=subprocess.PIPE, text=True)
            lines += reader.stdout.splitlines()
            number = 1 + max((int(line.split()[1]) for line in lines if line.startswith("case ")), default=number)
            if reader.returncode:
                bad += 1
                print(f"FAULT {lines[-1] if lines else 0}: ended the process with status {reader.returncode}")
    ended = [line for line in lines if line.startswith("end ")]
    kinds = collections.Counter(line.split()[1] for line in ended)
    faults = [line for line in lines if line.startswith("FAULT ")]
    print("\n".join(faults))
    print(f"{options.count} cases, {kinds['read']} read, {kinds['refused']} refused, {len(faults) + bad} faults")
    print(f"slowest {max(float(line.split()[2]) for line in ended):.2f} s, all {time.monotonic() - start:.0f} s")
    return 1 if faults or bad else 0


def read_cases(folder: Path, first: int, count: int, only: str) -> int:
    from support.damage import outcome
    from support.damaged_cases import cases

    found = [case for case in cases(folder / "good") if only in case.name]
    for number in range(first, first + count):
        case = found[number % len(found)]
        print(f"case {number} {case.name}", flush=True)
        start = time.monotonic()
        result = outcome(case, number, folder / "work")
        print(f"end {'read' if result.text == 'read' else 'refused'} {time.monotonic() - start:.2f}", flush=True)
        if result.fault is not None:
            print(f"FAULT {number} {case.name}: {result.fault}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
