"""Weights in eight bits: do verdicts stay what they are, how far are logits, and what memory is saved.

    python benchmarks/quantize.py labels MODEL [FILE] [--items 1000]    verdicts in eight bits and in --dtype
    python benchmarks/quantize.py logits MODEL FILE [--items 12]        divergence of next-token probabilities
    python benchmarks/quantize.py memory MODEL FILE [--items 4]         the peak of `thinkprm score`
    python benchmarks/quantize.py cycles [--topology v5e:2x2]           a TPU compiler's estimate; needs libtpu

FILE has ProcessBench's rows (`problem`, `steps`); without it, solutions of the bundled models' task are judged, of
problems that they never saw. ``logits`` is teacher-forced on problems and steps, by our
kernels and by XLA, which round inputs differently. ``memory`` is of processes of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from thinkprm_jax.arithmetic.task import example
from thinkprm_jax.model.quantization import Quantization

LONGEST = 256  # tokens of a text whose logits are compared
PEAK_OF = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclasses.dataclass(frozen=True)
class Items:
    problems: list[str]
    solutions: list[list[str]]

    @classmethod
    def read(cls, file: Path | None, count: int) -> Items:
        if file is None:
            return cls.held_out(count)
        lines = file.read_text(encoding="utf-8").splitlines()
        step = max(len(lines) // count, 1)
        rows = [json.loads(line) for line in lines[::step][:count]]
        return cls([row["problem"] for row in rows], [row["steps"] for row in rows])

    @classmethod
    def held_out(cls, count: int) -> Items:
        examples = [example(0, number, "test") for number in range(count)]
        return cls([each.problem for each in examples], [each.steps for each in examples])


def judge(arguments: argparse.Namespace, items: Items, quantize: str | None) -> list[dict[str, Any]]:
    from thinkprm_jax import ThinkPRM

    prm = ThinkPRM(
        arguments.model,
        quantize=quantize,
        dtype=arguments.dtype,
        temperature=0.0,
        slots=arguments.slots,
        max_length=arguments.max_length,
        max_gen_tokens=arguments.new,
    )
    found: list[dict[str, Any]] = prm.predict_correctness_batch(items.problems, items.solutions)
    return found


def show_labels(arguments: argparse.Namespace) -> None:
    items = Items.read(arguments.file, arguments.items)
    plain, small = (judge(arguments, items, quantize) for quantize in (None, "int8"))
    pairs = list(zip(plain, small, strict=True))
    labels = [
        a == b for one, two in pairs for a, b in zip(one["step_labels"][0], two["step_labels"][0], strict=True)
    ]
    scores = [abs(one["prefix_score"] - two["prefix_score"]) for one, two in pairs]
    table = Table(title=f"{arguments.model}: int8 against {arguments.dtype}, greedy")
    columns = (
        "solutions",
        "steps",
        "labels agree",
        "solutions agree",
        "chains equal",
        "scores differ by, mean",
        "max",
    )
    for column in columns:
        table.add_column(column, justify="right")
    whole = np.mean([one["step_labels"] == two["step_labels"] for one, two in pairs])
    same = np.mean([one["outputs"] == two["outputs"] for one, two in pairs])
    figures = (
        f"{np.mean(labels):.2%}",
        f"{whole:.2%}",
        f"{same:.1%}",
        f"{np.mean(scores):.1e}",
        f"{max(scores):.1e}",
    )
    table.add_row(str(len(pairs)), str(len(labels)), *figures)
    Console(width=130).print(table)


def show_logits(arguments: argparse.Namespace) -> None:
    from thinkprm_jax.checkpoint.huggingface import load_model
    from thinkprm_jax.checkpoint.quantized import quantize_decoder
    from thinkprm_jax.model.decoder import Decoder, use_products

    items = Items.read(arguments.file, arguments.items)
    model, tokenizer = load_model(arguments.model, dtype=arguments.dtype)
    pairs = zip(items.problems, items.solutions, strict=True)
    texts = [tokenizer.encode("\n".join((problem, *steps)))[:LONGEST] for problem, steps in pairs]

    def logprobs(model: Decoder, ids: Sequence[int]) -> np.ndarray:
        padded = np.zeros((1, LONGEST), np.int32)
        padded[0, : len(ids)] = ids
        return np.asarray(jax.nn.log_softmax(run(model, jnp.asarray(padded))[0, : len(ids)]))

    def compare(name: str, other: Decoder) -> None:
        divergences, same = [], []
        for ids in texts:
            a, b = logprobs(model, ids), logprobs(other, ids)
            divergences.append((np.exp(a) * (a - b)).sum(-1))
            same.append(a.argmax(-1) == b.argmax(-1))
        found = np.concatenate(divergences)
        table.add_row(
            name,
            str(len(found)),
            f"{found.mean():.5f}",
            f"{found.max():.3f}",
            f"{np.concatenate(same).mean():.2%}",
        )

    from flax import nnx

    run = nnx.jit(lambda model, tokens: model(tokens))
    table = Table(title=f"{arguments.model}: against {arguments.dtype}")
    for column in ("", "tokens", "KL, mean", "max", "the same likeliest token"):
        table.add_column(column, justify="right")
    small = quantize_decoder(model)
    compare("int8, XLA", small)
    use_products(small, "native")
    compare("int8, our kernels", small)
    compare("bfloat16", load_model(arguments.model, dtype="bfloat16")[0])
    Console(width=100).print(table)


def show_memory(arguments: argparse.Namespace) -> None:
    items = Items.read(arguments.file, arguments.items)
    table = Table(title=f"{arguments.model}: peak of `thinkprm score`, {arguments.items} solutions")
    for column in ("weights", "MiB", "of float32"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.jsonl"
        rows = zip(items.problems, items.solutions, strict=True)
        given.write_text("".join(json.dumps({"problem": p, "steps": s}) + "\n" for p, s in rows), encoding="utf-8")
        peaks: dict[str, float] = {}
        for name in ("float32", "bfloat16", "int8"):
            options = ["--quantize", "int8", "--dtype", "bfloat16"] if name == "int8" else ["--dtype", name]
            peaks[name] = peak(given, Path(folder) / f"{name}.jsonl", arguments, options)
            table.add_row(name, f"{peaks[name]:,.0f}", f"{peaks[name] / peaks['float32']:.2f}")
    Console(width=100).print(table)


def peak(given: Path, output: Path, arguments: argparse.Namespace, options: list[str]) -> float:
    """MiB of `thinkprm score`, in a process that starts nothing else."""
    command = [sys.executable, "-m", "thinkprm_jax.cli", "score", str(given), "--quiet", "--output", str(output)]
    command += ["--model", str(arguments.model), "--max-gen-tokens", str(arguments.new or 32), "--slots"]
    command += [str(min(arguments.slots, arguments.items)), "--max-length", str(arguments.max_length), *options]
    # Of a child's child: this process's own pages would count for a fork of it.
    done = subprocess.run([sys.executable, "-c", PEAK_OF, *command], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1]) / 1024


def show_cycles(arguments: argparse.Namespace) -> None:
    """A greedy decode step as of ``benchmarks/sampling.py``: 64 slots of 2,048 positions."""
    import os

    import sampling
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # outside Google's cloud nobody answers
    device = topologies.get_topology_desc(arguments.topology, "tpu").devices[0]
    config = sampling.shape_config(arguments.shape)
    table = Table(title=f"{arguments.shape}, {device.device_kind}: a decode step by the compiler's estimate")
    for column in ("weights", "cycles", "ms"):
        table.add_column(column, justify="right")
    kinds: tuple[Quantization | None, ...] = (None, "int8")
    for kind in kinds:
        text = sampling.compile_decode(config, device, sampling.SETTINGS[0], 64, 2_048, kind)
        program = sampling.HloProgram(text)
        cycles = program.cycles(program.loop()[0], min)
        rate = sampling.CYCLES_PER_SECOND.get(device.device_kind)
        table.add_row(kind or "bfloat16", f"{cycles:,.0f}", f"{1e3 * cycles / rate:.2f}" if rate else "-")
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, show, items in (
        ("labels", show_labels, 1_000),
        ("logits", show_logits, 12),
        ("memory", show_memory, 4),
    ):
        command = commands.add_parser(name)
        command.add_argument("model")
        command.add_argument("file", type=Path, nargs="?")
        command.add_argument("--items", type=int, default=items)
        command.add_argument("--dtype", default="float32")
        command.add_argument("--slots", type=int, default=16)
        command.add_argument("--max-length", type=int, default=2_048)
        command.add_argument("--max-gen-tokens", type=int, dest="new")
        command.set_defaults(show=show)
    command = commands.add_parser("cycles")
    command.add_argument("--topology", default="v5e:2x2")
    command.add_argument("--shape", default="1.5b")
    command.set_defaults(show=show_cycles)
    arguments = parser.parse_args()
    arguments.show(arguments)


if __name__ == "__main__":
    main()
