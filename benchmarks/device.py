"""Decode and prefill speed of one shape with random weights, beside what the memory bandwidth allows.

    python benchmarks/device.py --shape 1.5b --batches 1 64 128 --context 2048 --bandwidth 4300

For accelerators (`--dtype bfloat16`, the default); `--shape tiny --context 256` tries the program anywhere.

decode   seconds per step from two runs that differ in their number of new tokens only: prefill and compilation
         cancel out; tokens/s = batch / seconds per step
ceiling  batch / (bytes read per step / bandwidth); read are all weights but the embedding table, and the keys and
         values of `context` tokens of every row
prefill  prompt tokens / seconds of a run that generates one token a prompt (the faster of the repeats)
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from thinkprm_jax import bundled
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler import Request, Sampler, Think
from thinkprm_jax.tokenizer.tokenizer import Tokenizer


def qwen2(vocab: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, head: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head,
    )


def qwen3(shape: ModelConfig, tied: bool = False) -> ModelConfig:
    """Norms on the heads of q and k in place of biases."""
    return dataclasses.replace(shape, model_type="qwen3", qkv_bias=False, qk_norm=True, tie_embeddings=tied)


# The shapes of the R1-Distill-Qwen and Qwen3 models.
SHAPES = {
    "tiny": qwen2(2_048, 256, 704, 4, 4, 2, 64),
    "1.5b": qwen2(151_936, 1_536, 8_960, 28, 12, 2, 128),
    "7b": qwen2(152_064, 3_584, 18_944, 28, 28, 4, 128),
    "14b": qwen2(152_064, 5_120, 13_824, 48, 40, 8, 128),
    "qwen3-1.7b": qwen3(qwen2(151_936, 2_048, 6_144, 28, 16, 8, 128), tied=True),
    "qwen3-8b": qwen3(qwen2(151_936, 4_096, 12_288, 36, 32, 8, 128)),
}
FEW, MANY = 33, 161


def step_bytes(config: ModelConfig, weights: int, itemsize: int, batch: int, context: int) -> int:
    """Bytes that one decode step has to read."""
    embedding = config.vocab_size * config.hidden_size
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * context
    return itemsize * (weights - embedding + batch * cache)


def seconds(sampler: Sampler, prompts: np.ndarray, new_tokens: int) -> float:
    def script():
        yield Think(new_tokens)

    start = time.perf_counter()
    for _ in sampler.run([Request(prompt.tolist(), script) for prompt in prompts]):
        pass
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 128])
    parser.add_argument("--context", type=int, default=2_048)
    parser.add_argument("--bandwidth", type=float, help="of the device's memory, GB/s")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    config, dtype = SHAPES[arguments.shape], jnp.dtype(arguments.dtype)
    model = Decoder(config, rngs=nnx.Rngs(0), param_dtype=dtype, dtype=dtype)
    weights = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
    tokenizer = Tokenizer.load(Path(bundled.__file__).parent / "mini")
    table = Table(title=f"{arguments.shape}, {weights / 1e9:.2f} B parameters, {dtype.name}, {jax.devices()[0]}")
    for column in ("batch", "ms/step", "decode tokens/s", "ceiling tokens/s", "share", "prefill tokens/s"):
        table.add_column(column, justify="right")
    rng = np.random.default_rng(0)
    for batch in arguments.batches:
        room = arguments.context + MANY + 1
        sampler = Sampler(model, tokenizer, slots=batch, max_length=room)
        few, many, first = [], [], []
        for _ in range(arguments.repeats + 1):
            # New prompts each time: a prompt that a slot still holds would not be prefilled again.
            prompts = rng.integers(1, 2_000, (3, batch, arguments.context))
            first.append(seconds(sampler, prompts[0], 1))
            few.append(seconds(sampler, prompts[1], FEW))
            many.append(seconds(sampler, prompts[2], MANY))
        step = (statistics.median(many[1:]) - statistics.median(few[1:])) / (MANY - FEW)
        row = [str(batch), f"{step * 1e3:.2f}", f"{batch / step:,.0f}", "-", "-"]
        if arguments.bandwidth:
            read = step_bytes(config, weights, dtype.itemsize, batch, arguments.context + (FEW + MANY) // 2)
            ceiling = batch * arguments.bandwidth * 1e9 / read
            row[3:] = [f"{ceiling:,.0f}", f"{batch / step / ceiling:.0%}"]
        table.add_row(*row, f"{batch * arguments.context / min(first[1:]):,.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
