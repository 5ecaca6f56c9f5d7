"""Our sampler against transformers ``generate``: the same weights, prompts, greedy tokens and machine, in one run.

    python benchmarks/sampler.py [--shapes 5m 55m 630m] [--repeats 3]     static batches: batch 16, prompt 128
    python benchmarks/sampler.py --unequal                                64 requests, 16 to 512 new tokens
    python benchmarks/sampler.py --shared                                 eight chains of one 1,500-token prompt
    python benchmarks/sampler.py --room                                   short requests, max_length 512 and 8,192

Runs alternate between the two programs and the tables show medians. Every repeat has new prompts, so that nothing
is left of them in our sampler: both sides prefill every prompt. What ours prefilled is counted, printed and
checked. Each side is timed in float32 and bfloat16, and the ratio is of the dtype that is faster for it. The CPU
seconds are of all cores: they say more than the others on a machine that does other work, too. Needs the `test`
extra (torch, the CPU build).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from thinkprm_jax import bundled
from thinkprm_jax.checkpoint.huggingface import load_model, save_model
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler import Request, Sampler, Think
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Shape:
    """A random Qwen2 and how many tokens are generated with it."""

    config: ModelConfig
    new_tokens: int


def qwen2(vocab: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=64,
        tie_embeddings=True,
    )


SHAPES = {
    "5m": Shape(qwen2(2_048, 256, 704, 6, 4, 2), 64),
    "55m": Shape(qwen2(32_000, 512, 1_792, 8, 8, 2), 64),
    "630m": Shape(dataclasses.replace(qwen2(151_936, 896, 4_864, 24, 14, 2), tie_embeddings=False), 16),
}


class Ours:
    """The sampler, compiled and warm."""

    def __init__(self, folder: Path, dtype: str, slots: int, max_length: int, hints: bool = True) -> None:
        self.name, self.dtype = "thinkprm_jax" if hints else "thinkprm_jax, no size hints", dtype
        self.hints = hints
        model, tokenizer = load_model(folder, dtype=dtype)
        # Random weights repeat themselves, and drafts would guess that.
        self.sampler = Sampler(model, tokenizer, slots=slots, max_length=max_length, drafts=0)
        self.prompt_tokens = 0  # of all runs
        self._before = (0.0, 0.0)  # seconds of the device and of the host until it was warm
        self._seen: set[tuple[int, ...]] = set()

    def prefilled(self) -> str:
        """Share of the prompts' tokens that went through the model: the rest was taken from other contexts."""
        return f"{1 - self.sampler.stats.shared_tokens / self.prompt_tokens:.1%}"

    def is_warm(self) -> None:
        stats = self.sampler.stats
        self._before = stats.device_seconds, stats.host_seconds

    def idle(self) -> str:
        """Share of the time since it was warm that its device waited for the host."""
        stats = self.sampler.stats
        device, host = stats.device_seconds - self._before[0], stats.host_seconds - self._before[1]
        return f"{host / (device + host):.2%}"

    def run(self, prompts: list[list[int]], new_tokens: list[int]) -> list[list[int]]:
        self.prompt_tokens += sum(map(len, prompts))
        new = {tuple(prompt) for prompt in prompts}
        assert not new & self._seen, "a prompt of an earlier run is given again: it would not be prefilled"
        self._seen |= new

        def script(budget: int) -> Callable:
            def think():
                thought = yield Think(budget)
                return thought.ids

            return think

        hint = int(self.hints)
        requests = [Request(p, script(n), size_hint=hint * n) for p, n in zip(prompts, new_tokens, strict=True)]
        results = dict(self.sampler.run(requests))
        return [results[i].value for i in range(len(prompts))]


class Theirs:
    """transformers, static batches of equal prompts (no padding needed); a batch runs to its longest budget."""

    def __init__(self, folder: Path, dtype: str, batch: int) -> None:
        self.name, self.dtype, self.batch = "transformers", dtype, batch
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def prefilled(self) -> str:
        return "100.0%"  # generate() keeps nothing from call to call

    def is_warm(self) -> None:
        pass

    def idle(self) -> str:
        return ""

    def run(self, prompts: list[list[int]], new_tokens: list[int]) -> list[list[int]]:
        outputs = []
        for start in range(0, len(prompts), self.batch):
            ids = torch.tensor(prompts[start : start + self.batch])
            longest = max(new_tokens[start : start + self.batch])
            with torch.inference_mode():
                out = self.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=longest,
                    min_new_tokens=longest,
                    do_sample=False,
                    pad_token_id=0,
                )
            rows = out[:, ids.shape[1] :].tolist()
            outputs += [row[:n] for row, n in zip(rows, new_tokens[start : start + self.batch], strict=True)]
        return outputs


def save_random(config: ModelConfig, folder: Path) -> None:
    tokenizer = Tokenizer.load(Path(bundled.__file__).parent / "mini")
    save_model(Decoder(config, rngs=nnx.Rngs(0), param_dtype=jnp.float32), tokenizer, folder)


Times = tuple[float, float]  # wall seconds, CPU seconds of all cores


def timed(run: Callable, *arguments: object) -> Times:
    cpu, start = time.process_time(), time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start, time.process_time() - cpu


def medians(times: list[Times]) -> Times:
    wall, cpu = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def measure(
    programs: list, prompts_of: Callable[[], list[list[int]]], new_tokens: list[int], repeats: int
) -> dict[Ours | Theirs, Times]:
    """Medians of every program, after one warm-up; they take turns with the prompts of a repeat."""
    times: dict[Ours | Theirs, list[Times]] = {program: [] for program in programs}
    prompts = prompts_of()
    outputs = {program: program.run(prompts, new_tokens) for program in programs}
    reference = next(iter(outputs.values()))
    for program, output in outputs.items():
        same = np.mean([a == b for x, y in zip(output, reference, strict=True) for a, b in zip(x, y, strict=True)])
        program.agreement = float(same)
        program.is_warm()
    for _ in range(repeats):
        prompts = prompts_of()
        for program in programs:
            times[program].append(timed(program.run, prompts, new_tokens))
    for program in programs:
        assert program.prefilled() == "100.0%", f"{program.name}: {program.prefilled()} of the prompts prefilled"
    return {program: medians(values) for program, values in times.items()}


def random_prompts(config: ModelConfig, rng: np.random.Generator, count: int, length: int) -> Callable:
    """Draws `count` other prompts of `length` tokens each time it is called."""
    return lambda: rng.integers(1, config.vocab_size, (count, length)).tolist()


COLUMNS = (
    "program",
    "dtype",
    "seconds",
    "CPU seconds",
    "tokens/s",
    "prompt prefilled",
    "device waits",
    "same tokens as the first row",
)


def report(title: str, times: dict[Ours | Theirs, Times], tokens: int) -> None:
    """Every program and dtype, and the ratio of the best of each side."""
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("program", "dtype") else "right")
    for program, (wall, cpu) in times.items():
        table.add_row(
            program.name,
            program.dtype,
            f"{wall:.2f}",
            f"{cpu:.2f}",
            f"{tokens / wall:,.0f}",
            program.prefilled(),
            program.idle(),
            f"{program.agreement:.1%}",
        )
    wall, cpu = (
        min(t[clock] for p, t in times.items() if isinstance(p, Theirs))
        / min(t[clock] for p, t in times.items() if isinstance(p, Ours))
        for clock in (0, 1)
    )
    console = Console(width=110)
    console.print(table)
    console.print(f"{title}: transformers / thinkprm_jax = {wall:.2f}x (CPU seconds {cpu:.2f}x)\n")


def static_batches(names: list[str], repeats: int, batch: int) -> None:
    for name in names:
        shape = SHAPES[name]
        prompts_of = random_prompts(shape.config, np.random.default_rng(0), batch, 128)
        new_tokens = [shape.new_tokens] * batch
        with tempfile.TemporaryDirectory() as folder:
            save_random(shape.config, Path(folder))
            programs = [Ours(Path(folder), dtype, batch, 256) for dtype in DTYPES]
            programs += [Theirs(Path(folder), dtype, batch) for dtype in DTYPES]
            times = measure(programs, prompts_of, new_tokens, repeats)
        report(f"{name}, batch {batch}, prompt 128, {shape.new_tokens} new", times, sum(new_tokens))


def unequal_work(repeats: int) -> None:
    """64 requests with a long tail of lengths: slots are refilled, static batches wait for their longest row.

    16 + an exponential of mean 150, cut at 512: with a heavier tail the longest request alone would take longer
    than all the others together on 16 slots, and no scheduler could keep the slots busy.
    """
    rng = np.random.default_rng(1)
    shape = SHAPES["5m"]
    new_tokens = np.clip(16 + rng.exponential(150, 64), 16, 512).astype(int).tolist()
    prompts_of = random_prompts(shape.config, rng, 64, 128)
    with tempfile.TemporaryDirectory() as folder:
        save_random(shape.config, Path(folder))
        programs = [Ours(Path(folder), dtype, 16, 768, hints) for hints in (True, False) for dtype in DTYPES]
        programs += [Theirs(Path(folder), dtype, 16) for dtype in DTYPES]
        times = measure(programs, prompts_of, new_tokens, repeats)
    report(f"unequal work, 64 requests, {min(new_tokens)} to {max(new_tokens)} new", times, sum(new_tokens))
    for program in (programs[0], programs[2]):
        print(f"{program.name}: slots busy {program.sampler.stats.occupancy:.1%} of decode steps")


def shared_prompt(repeats: int) -> None:
    """Time to the first token of one chain and of eight chains of one prompt."""
    shape = SHAPES["55m"]
    rng = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as folder:
        save_random(shape.config, Path(folder))
        program = Ours(Path(folder), "float32", 8, 2_048)
    times: dict[int, list[Times]] = {1: [], 8: []}
    prefilled: dict[int, int] = {}
    for _ in range(repeats + 1):
        for chains in times:
            prompt = rng.integers(1, shape.config.vocab_size, 1_500).tolist()
            shared = program.sampler.stats.shared_tokens
            times[chains].append(timed(program.run, [prompt] * chains, [1] * chains))
            prefilled[chains] = chains * len(prompt) - (program.sampler.stats.shared_tokens - shared)
    (one, cpu_one), (eight, cpu_eight) = (medians(values[1:]) for values in times.values())
    print(f"first token of 1 chain {one:.2f} s, of 8 chains {eight:.2f} s: {eight / one:.2f}x")
    print(f"CPU {cpu_one:.2f} s and {cpu_eight:.2f} s; prompt tokens through the model: {prefilled}\n")


def unused_room(repeats: int) -> None:
    """The same short requests under a small and a large max_length: what is not used must cost nothing."""
    shape = dataclasses.replace(SHAPES["5m"].config, max_position_embeddings=8_192)
    rng = np.random.default_rng(3)
    prompts_of = random_prompts(shape, rng, 32, 100)
    with tempfile.TemporaryDirectory() as folder:
        save_random(shape, Path(folder))
        programs = {room: Ours(Path(folder), "float32", 16, room) for room in (512, 8_192)}
    times: dict[int, list[Times]] = {room: [] for room in programs}
    for _ in range(repeats + 1):
        prompts = prompts_of()
        for room, program in programs.items():
            times[room].append(timed(program.run, prompts, [64] * len(prompts)))
    (small, cpu_small), (large, cpu_large) = (medians(values[1:]) for values in times.values())
    print(f"max_length 512: {small:.2f} s, max_length 8,192: {large:.2f} s: {large / small:.2f}x")
    prefilled = ", ".join(program.prefilled() for program in programs.values())
    print(f"CPU {cpu_small:.2f} s and {cpu_large:.2f} s; of the prompts prefilled: {prefilled}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["5m", "55m", "630m"], choices=list(SHAPES))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--unequal", action="store_true")
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--room", action="store_true")
    arguments = parser.parse_args()
    if arguments.unequal:
        unequal_work(arguments.repeats)
    if arguments.shared:
        shared_prompt(arguments.repeats)
    if arguments.room:
        unused_room(arguments.repeats)
    if not (arguments.unequal or arguments.shared or arguments.room):
        static_batches(arguments.shapes, arguments.repeats, arguments.batch)


if __name__ == "__main__":
    main()
