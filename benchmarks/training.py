"""Training speed: our step against a plain PyTorch loop over transformers, and packed rows against padded ones.

    python benchmarks/training.py [--shapes mini 10m] [--rounds 5]   the same Qwen2, batches and AdamW twice
    python benchmarks/training.py --packing                          lengths like the 1K set's: target tokens/s

Turns alternate between the programs in one process after a warm-up, so compilation is not counted; the tables show
medians over rounds. Each side is timed in float32 and bfloat16 (torch: autocast) and compared at its faster one.
The warm-up is two turns, after which our memory is no longer fetched from the system.
Needs the `test` extra (torch, the CPU build).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import Qwen2Config, Qwen2ForCausalLM

from thinkprm_jax.arithmetic.source import ArithmeticChains
from thinkprm_jax.checkpoint.huggingface import BUNDLED
from thinkprm_jax.data.batches import Batch, TokenisedExample, batches
from thinkprm_jax.data.sources import ChainDataset
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.runtime import keep_memory
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.optimizer import make_optimizer
from thinkprm_jax.training.trainer import Trainer

OPTIMIZER = OptimizerConfig(learning_rate=1e-3, b2=0.95, weight_decay=0.01, clip_norm=1.0)
SHAPES = {"mini": (128, 384, 6, 4, 2), "10m": (320, 960, 8, 5, 5)}  # width, inner width, layers, heads, KV heads
BUCKETS, PLACES = (192, 256, 384), 5120


def config_of(shape: str, vocabulary: int) -> ModelConfig:
    width, inner, layers, heads, kv_heads = SHAPES[shape]
    return ModelConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=width // heads, qkv_bias=True, tie_embeddings=True,
    )  # fmt: skip


class Ours:
    name = "thinkprm_jax"

    def __init__(self, config: ModelConfig, dtype: str) -> None:
        self.dtype = dtype
        mesh = make_mesh(devices=jax.devices()[:1])
        self.trainer = Trainer(config, make_optimizer(OPTIMIZER, 1000), mesh, dtype)
        self.state = self.trainer.init(0)

    def run(self, work: Sequence[Batch]) -> float:
        """Trains on all of it; the last loss."""
        for batch in work:
            self.state, metrics = self.trainer.train_step(self.state, self.trainer.place(batch))
        return float(metrics["loss"])


class Torch:
    """The loop that one writes with transformers and torch: right padding, AdamW, clipping, autocast."""

    name = "torch + transformers"

    def __init__(self, config: ModelConfig, dtype: str) -> None:
        self.dtype = dtype
        torch.manual_seed(0)
        self.model = Qwen2ForCausalLM(Qwen2Config(**config.to_hf())).train()
        matrices = [p for p in self.model.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": OPTIMIZER.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        betas = (OPTIMIZER.b1, OPTIMIZER.b2)
        self.optimizer = torch.optim.AdamW(groups, OPTIMIZER.learning_rate, betas, OPTIMIZER.eps)

    def run(self, work: Sequence[Batch]) -> float:
        for batch in work:
            tokens = torch.from_numpy(batch.tokens.astype(np.int64))
            targets = torch.from_numpy(np.where(batch.weights > 0, batch.targets, -100).astype(np.int64))
            with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
                logits = self.model(tokens).logits
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), OPTIMIZER.clip_norm)
            self.optimizer.step()
        return loss.item()


def take_turns(programs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median seconds of each program, after two turns of each that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 2):
        for name, run in programs.items():
            start = time.perf_counter()
            loss = run()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
            assert np.isfinite(loss), name
    return {name: statistics.median(times) for name, times in seconds.items()}


def compare_with_torch(shapes: Sequence[str], rounds: int, console: Console) -> None:
    tokenizer = Tokenizer.load(BUNDLED["mini"])
    dataset = ChainDataset(2_000, ArithmeticChains(1, "train", 0), tokenizer, BUCKETS[-1])
    stream = batches(dataset, BUCKETS, lambda bucket: PLACES // bucket, shuffle=False)
    work = [next(stream)[0] for _ in range(4)]
    tokens = sum(batch.real_tokens for batch in work)
    table = Table("shape", "program", "dtype", "tokens/s", title=f"{len(work)} steps, {tokens:,} tokens")
    ratios = []
    for shape in shapes:
        config = config_of(shape, tokenizer.vocab_size)
        sides = [side(config, dtype) for side in (Ours, Torch) for dtype in ("float32", "bfloat16")]
        programs = {f"{side.name}|{side.dtype}": lambda side=side: side.run(work) for side in sides}
        medians = take_turns(programs, rounds)
        for name, seconds in medians.items():
            table.add_row(shape, *name.split("|"), f"{tokens / seconds:,.0f}")
        best = {side: min(s for n, s in medians.items() if n.startswith(side)) for side in (Ours.name, Torch.name)}
        ratios.append(f"{shape}: {best[Torch.name] / best[Ours.name]:.2f}x of torch's tokens/s")
    console.print(table)
    console.print("\n".join(ratios))


class Drawn:
    """Random ids of lengths like those of the 1K set: chains of mean 1,037 (207 to 3,669), prompts around 400.

    The set itself is no part of this project; its published figures fix the distribution that is drawn from.
    """

    def __init__(self, count: int, vocabulary: int, longest: int) -> None:
        rng = np.random.default_rng(0)
        chains = np.clip(rng.lognormal(np.log(900), 0.53, count), 207, 3_669).astype(int)
        prompts = np.clip(rng.lognormal(np.log(370), 0.45, count), 120, 1_500).astype(int)
        self.sizes = [(int(p), int(c)) for p, c in zip(prompts, chains, strict=True) if p + c <= longest]
        self.vocabulary, self.fingerprint = vocabulary, "drawn"

    def __len__(self) -> int:
        return len(self.sizes)

    def length(self, index: int) -> int:
        return sum(self.sizes[index]) - 1

    def targets(self, index: int) -> int:
        return self.sizes[index][1]

    def __getitem__(self, index: int) -> TokenisedExample:
        prompt, chain = self.sizes[index]
        ids = np.random.default_rng(index).integers(0, self.vocabulary, prompt + chain).astype(np.int32)
        return TokenisedExample(ids, np.repeat(np.float32([0, 1]), [prompt, chain]))


def compare_packing(rounds: int, console: Console) -> None:
    """Rows of 4,096 places, 4 a step: one chain in each row, or as many as fit."""
    length, rows = 4096, 4
    vocabulary = 1024
    dataset = Drawn(400, vocabulary, length)
    ours = Ours(config_of("mini", vocabulary), "bfloat16")
    work, targets = {}, {}
    for name, packing in (("padded", False), ("packed", True)):
        stream = batches(dataset, (length,), lambda _: rows, seed=0, packing=packing)
        work[name] = [next(stream)[0] for _ in range(3)]
        targets[name] = sum(batch.target_tokens for batch in work[name])
    medians = take_turns({name: lambda name=name: ours.run(work[name]) for name in work}, rounds)
    table = Table("rows", "chains a step", "places used", "target tokens/s")
    for name, seconds in medians.items():
        chains = sum(batch.examples for batch in work[name]) / len(work[name])
        used = sum(batch.real_tokens for batch in work[name]) / sum(batch.capacity for batch in work[name])
        table.add_row(name, f"{chains:.1f}", f"{used:.0%}", f"{targets[name] / seconds:,.0f}")
    console.print(table)
    rate = {name: targets[name] / seconds for name, seconds in medians.items()}
    console.print(f"packed / padded: {rate['packed'] / rate['padded']:.2f}x target tokens/s")
    console.print(f"the step was compiled {ours.trainer.compiles()} times (packed and padded batches differ)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["mini", "10m"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packing", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=100)
    keep_memory()  # as `thinkprm train` does; torch, in the same process, has it, too
    if arguments.packing:
        compare_packing(arguments.rounds, console)
    else:
        compare_with_torch(arguments.shapes, arguments.rounds, console)


if __name__ == "__main__":
    main()
