"""What a large file of chains costs before the first step: seconds and memory of one process.

    python benchmarks/training_data.py --chains 65000 --long 4

Writes chains of the synthetic task (``--long``: so many times repeated texts a chain, to be as long as those of
models) into a temporary file, opens it as `data.train.chains` of a recipe and lays out its first batches, in a
process of its own: once with chains on disk, whose verdicts are read when their turn comes, as training has them;
once in a list in memory, all of them read before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from thinkprm_jax.arithmetic.source import ArithmeticChains
from thinkprm_jax.data.batches import batches
from thinkprm_jax.data.chains import ChainReport, iterate_chains
from thinkprm_jax.data.sources import ChainDataset, ListedChains, SpooledChains
from thinkprm_jax.tokenizer.tokenizer import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--chains", type=int, default=65_000)
    parser.add_argument("--long", type=int, default=1, help="each chain's text so many times (1)")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--kept", choices=("disk", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kept:
        print(json.dumps(measure(arguments.file, arguments.kept, arguments.batches)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chains.jsonl"
        write(file, arguments.chains, arguments.long)
        print(f"{arguments.chains:,} chains, {file.stat().st_size / 1e6:,.0f} MB of JSON Lines")
        print(
            f"{'kept':8}{'opened s':>10}{'first batch s':>15}{f'{arguments.batches} batches s':>14}{'peak MB':>9}"
        )
        for kept in ("disk", "memory"):
            command = [sys.executable, __file__, "--kept", kept, "--file", str(file)]
            command += ["--batches", str(arguments.batches)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            opened, first, more, peak = found
            print(f"{kept:8}{opened:10.1f}{first:15.2f}{more:14.1f}{peak:9,.0f}", flush=True)


def write(file: Path, count: int, long: int) -> None:
    draw = ArithmeticChains(1, "train", 0)
    with file.open("w", encoding="utf-8") as out:
        for index in range(count):
            chain = draw(index)
            row = {"problem": chain.problem, "prefix_steps": chain.steps, "cot": "\n".join([chain.chain] * long)}
            row |= {"gt_step_labels": ["+" if label else "-" for label in chain.labels]}
            out.write(json.dumps({**row, "prefix_label": chain.correct}) + "\n")


def measure(file: str, kept: str, count: int) -> tuple[float, float, float, float]:
    """Seconds until the data is open, then until the first batch, then until all; peak resident megabytes."""
    tokenizer = Tokenizer.load(Path(__file__).parents[1] / "thinkprm_jax" / "bundled" / "mini")
    begun = time.perf_counter()
    report = ChainReport("chains")
    late = kept == "disk"
    chains = iterate_chains(file, report=report, verdicts=not late)
    source = SpooledChains(chains, unchecked=True) if late else ListedChains(list(chains))
    fingerprint, size = source.fingerprint, report.rows - report.left_out
    opened = time.perf_counter()
    assert fingerprint
    dataset = ChainDataset(size, source, tokenizer, 4096)
    stream = batches(dataset, [512, 1024, 2048, 4096], lambda bucket: 16)
    next(stream)
    first = time.perf_counter()
    assert len(list(islice(stream, count - 1))) == count - 1
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return opened - begun, first - opened, ended - first, peak


if __name__ == "__main__":
    main()
