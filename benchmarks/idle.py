"""How long the device waits for the host, and whether a chunk should be launched before the last one is read.

    python benchmarks/idle.py verdicts MODEL... [--rows 16 64]    share of the time that the device waits
    python benchmarks/idle.py host [--rows 16 64 128]             the host beside a fast device, made to be slow
    python benchmarks/idle.py loops                               the loop as it is beside one that launches ahead

``verdicts`` writes chains of a verifier with real scripts (think, be made to decide, a verdict for every step);
a MODEL is a file or folder, or a shape of benchmarks/sampler.py with random weights. Device and host are timed
inside the sampler (`SamplerStats.device_seconds`, `host_seconds`), compiling left out by a run before.

``host`` does the same with a model so small that only the host's part is of interest, beside a device that is
pretended: a chunk's results are held back until so many milliseconds a step have passed since its launch. It runs
without and with chunks that are launched before results are given (``Sampler(ahead=...)``), in turns.

``loops`` runs no model: slots with chains of random lengths on two clocks. The loop as it is: a chunk, then the
host goes on with the rows that stopped. Ahead: while the host reads a chunk the device runs the next one with the
rows that have not stopped; those that have wait for its end.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from thinkprm_jax.sampler import Sampler, SamplerStats

CHUNK = 32


def table_of(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    return table


# With a sampler


def solutions(count: int, seed: int, steps: int = 5) -> tuple[list[str], list[list[str]]]:
    """Problems and their solutions, other ones for every seed."""
    dice = random.Random(seed)
    problems, answers = [], []
    for _ in range(count):
        numbers = [dice.randrange(10, 1000) for _ in range(steps + 1)]
        problems.append("Add " + ", ".join(map(str, numbers)) + ".")
        total, lines = numbers[0], []
        for number in numbers[1:]:
            lines.append(f"Adding {number} to {total} makes {total + number}.")
            total += number
        answers.append(lines)
    return problems, answers


def run(sampler: Sampler, count: int, new: int, seed: int) -> SamplerStats:
    """What the sampler counted while it wrote ``count`` verdicts."""
    from thinkprm_jax import ThinkPRM

    before = dataclasses.asdict(sampler.stats)
    prm = ThinkPRM(sampler=sampler, n=1, temperature=1.0, max_gen_tokens=new, seed=seed)
    prm.predict_correctness_batch(*solutions(count, seed))
    after = dataclasses.asdict(sampler.stats)
    return type(sampler.stats)(**{name: after[name] - before[name] for name in after})


def pretend(sampler: Sampler, milliseconds: float) -> None:
    """That a step of the device takes so long."""
    for worker in sampler._workers:
        fetch, clock = worker._fetch, worker._clock

        def slow(output, fetch=fetch, clock=clock):
            fetched = fetch(output)
            begun = clock._busy
            time.sleep(max(begun + 1e-3 * milliseconds * int(fetched.steps) - time.monotonic(), 0))
            return fetched

        worker._fetch = slow


def count_chunks(sampler: Sampler) -> list[int]:
    """A list that gets a number for each chunk from now on."""
    seen: list[int] = []
    for worker in sampler._workers:
        launch = worker.launch

        def counted(parameters, launch=launch):
            seen.append(1)
            launch(parameters)

        worker.launch = counted
    return seen


def show_verdicts(arguments: argparse.Namespace) -> None:
    from sampler import SHAPES, save_random

    from thinkprm_jax.checkpoint.huggingface import load_model
    from thinkprm_jax.runtime import enable_compilation_cache
    from thinkprm_jax.sampler import Sampler

    enable_compilation_cache()
    title = f"verdicts, {arguments.new} tokens of thought, {arguments.dtype}"
    table = table_of(
        title, "model", "rows", "seconds", "chunks", "ms a chunk: device", "host", "idle", "slots busy"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            path = Path(name)
            if name in SHAPES:
                path = Path(folder) / name
                save_random(SHAPES[name].config, path)
            model, tokenizer = load_model(path, dtype=arguments.dtype)
            for rows in arguments.rows:
                settings = {} if arguments.drafts is None else {"drafts": arguments.drafts}
                sampler = Sampler(model, tokenizer, slots=rows, max_length=arguments.max_length, **settings)
                seen = count_chunks(sampler)
                run(sampler, rows, arguments.new, 0)
                seen.clear()
                stats = run(sampler, rows * arguments.times, arguments.new, 1)
                seconds = stats.device_seconds + stats.host_seconds
                table.add_row(
                    Path(name).stem,
                    str(rows),
                    f"{seconds:.1f}",
                    str(len(seen)),
                    f"{1e3 * stats.device_seconds / len(seen):.1f}",
                    f"{1e3 * stats.host_seconds / len(seen):.2f}",
                    f"{stats.idle_share:.2%}",
                    f"{stats.occupancy:.0%}",
                )
    Console(width=110).print(table)


def show_host(arguments: argparse.Namespace) -> None:
    import jax.numpy as jnp
    from flax import nnx
    from sampler import qwen2

    from thinkprm_jax import bundled
    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(Path(bundled.__file__).parent / "mini")
    model = Decoder(qwen2(tokenizer.vocab_size, 64, 64, 1, 1, 1), rngs=nnx.Rngs(0), param_dtype=jnp.float32)
    title = f"{arguments.new} tokens of thought, {arguments.drafts} drafted, {arguments.step:g} ms a step"
    columns = (
        "rows",
        "ahead",
        "chunks",
        "steps a chunk",
        "device waits, ms a chunk",
        "share",
        "rows busy",
        "seconds",
    )
    table = table_of(title, *columns)
    for rows in arguments.rows:
        samplers = []
        for ahead in (False, True):
            # A prefix cache, however small, is kept by one worker: its clock is that of all rows.
            samplers.append(
                Sampler(
                    model, tokenizer, slots=rows, max_length=2048, drafts=arguments.drafts, prefix_cache=16,
                    products="xla", ahead=ahead,
                )
            )  # fmt: skip
        for sampler in samplers:
            for seed in (0, 1):  # compiled
                run(sampler, arguments.times * rows, arguments.new, seed)
            pretend(sampler, arguments.step)
        gc.collect()
        gc.freeze()  # what compiling has left: looking through it takes 0.2 s, now and then, in either run
        for sampler in samplers:
            seen = count_chunks(sampler)
            stats = run(sampler, arguments.times * rows, arguments.new, 2)
            table.add_row(
                str(rows),
                "yes" if sampler.ahead else "no",
                str(len(seen)),
                f"{stats.decode_steps / len(seen):.1f}",
                f"{1e3 * stats.host_seconds / len(seen):.2f}",
                f"{stats.idle_share:.2%}",
                f"{stats.occupancy:.0%}",
                f"{stats.host_seconds + stats.device_seconds:.2f}",
            )
    Console(width=110).print(table)


# Two loops on two clocks


@dataclasses.dataclass
class Row:
    """left: steps until it waits for the host. thinks: it writes, and is not made to decide."""

    left: int
    thinks: bool = True

    def go_on(self, dice: random.Random, mean: float) -> None:
        """The host: a thought is followed by a question, and that by the next chain's thought."""
        self.thinks = not self.thinks
        self.left = 1 + int(dice.expovariate(1 / mean)) if self.thinks else 2


def run_chunk(rows: list[Row]) -> tuple[int, int]:
    """A chunk for all that have steps left. Returns: its steps, and how many tokens they gave."""
    slots, steps, tokens = len(rows), 0, 0
    while steps < CHUNK and sum(row.left > 0 for row in rows) > slots - max(slots // 8, 1):
        for row in rows:
            if row.left > 0:
                row.left -= 1
                tokens += 1
        steps += 1
    return steps, tokens


def throughput(slots: int, mean: float, host: float, ahead: bool, chunks: int = 4000) -> tuple[float, float]:
    """(tokens in the time of a step, share of the time that the device waits). host: of a chunk, in steps."""
    dice = random.Random(0)
    rows = [Row(1 + int(dice.expovariate(1 / mean))) for _ in range(slots)]
    time = idle = tokens = 0.0
    waiting: list[Row] = []  # read, and gone on with once the chunk that runs is over
    for _ in range(chunks):
        steps, new = run_chunk(rows)
        tokens += new
        if not ahead:
            idle += host
            time += steps + host
            for row in rows:
                if row.left == 0:
                    row.go_on(dice, mean)
            continue
        # While these steps ran the host has read the chunk before.
        late = max(host - steps, 0.0)
        idle += late
        time += steps + late
        for row in waiting:
            row.go_on(dice, mean)
        waiting = [row for row in rows if row.left == 0]
    return tokens / time, idle / time


def show_loops(arguments: argparse.Namespace) -> None:
    title = "tokens in the time of a step: the loop as it is, and launching ahead"
    table = table_of(
        title, "slots", "tokens of a thought", "host, steps a chunk", "idle", "as it is", "ahead", "gain"
    )
    for slots in arguments.rows:
        for mean in arguments.means:
            for host in arguments.hosts:
                now, idle = throughput(slots, mean, host, ahead=False)
                ahead, _ = throughput(slots, mean, host, ahead=True)
                table.add_row(
                    str(slots),
                    f"{mean:g}",
                    f"{host:g}",
                    f"{idle:.1%}",
                    f"{now:.1f}",
                    f"{ahead:.1f}",
                    f"{ahead / now - 1:+.1%}",
                )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    verdicts = commands.add_parser("verdicts")
    verdicts.add_argument("models", nargs="+")
    verdicts.add_argument("--rows", nargs="*", type=int, default=[16])
    verdicts.add_argument("--new", type=int, default=96)
    verdicts.add_argument("--times", type=int, default=2, help="solutions a row")
    verdicts.add_argument("--max-length", type=int, default=1536)
    verdicts.add_argument("--dtype", default="float32")
    verdicts.add_argument("--drafts", type=int, help="default: what pays")
    verdicts.set_defaults(show=show_verdicts)
    host = commands.add_parser("host")
    host.add_argument("--rows", nargs="*", type=int, default=[16, 64, 128])
    host.add_argument("--new", type=int, default=512)
    host.add_argument("--step", type=float, default=12.0, help="milliseconds of a step of the device")
    host.add_argument("--times", type=int, default=4, help="solutions a row")
    host.add_argument("--drafts", type=int, default=0)
    host.set_defaults(show=show_host)
    loops = commands.add_parser("loops")
    loops.add_argument("--rows", nargs="*", type=int, default=[16, 64, 128])
    loops.add_argument("--means", nargs="*", type=float, default=[200, 800])
    loops.add_argument("--hosts", nargs="*", type=float, default=[0.1, 0.5, 2.0])
    loops.set_defaults(show=show_loops)
    arguments = parser.parse_args()
    arguments.show(arguments)


if __name__ == "__main__":
    main()
