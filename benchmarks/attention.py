"""A decode step's attention and sums on CPUs: our kernels beside XLA's, on random numbers.

    python benchmarks/attention.py

A row of the first table is B rows of the cache with S positions, of which 85% are filled, and W tokens of each row
that attend to them (W above one: a step that tries drafts). Times are the shortest of some, in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from thinkprm_jax.model.attention import attend_cache
from thinkprm_jax.model.cache import KVCache, readable
from thinkprm_jax.model.decode_step import attend_in_order, log_sum_exp, sum_of_squares

COLUMNS, FILLED, WRITTEN, REPEATS = 71, 0.85, 10, 20
# Heads of Qwen2.5-0.5B and of SmolLM2-135M.
SHAPES = [
    (1, 1, 14, 2, 512),
    (1, 8, 14, 2, 512),
    (4, 4, 14, 2, 512),
    (16, 1, 14, 2, 512),
    (16, 1, 9, 3, 512),
    (16, 1, 14, 2, 2048),
]


def microseconds(functions: list[Callable], *arguments: jax.Array) -> list[float]:
    """Of each, in turns; the first call of each compiles."""
    compiled = [jax.jit(function) for function in functions]
    best = [float("inf")] * len(functions)
    for turn in range(REPEATS + 1):
        for i, function in enumerate(compiled):
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            if turn:
                best[i] = min(best[i], time.perf_counter() - start)
    return [1e6 * seconds for seconds in best]


def attention(rows: int, tokens: int, heads: int, kv_heads: int, length: int) -> list[float]:
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.normal(size=(rows, tokens, heads, 64)), jnp.float32)
    cached = rows, kv_heads, length + COLUMNS, 64
    keys, values = (jnp.asarray(rng.normal(size=cached), jnp.float32) for _ in range(2))
    lengths = jnp.full((rows,), int(FILLED * length), jnp.int32)
    written = jnp.ones((rows, COLUMNS), bool) & (jnp.arange(COLUMNS) < WRITTEN)
    seen = readable(KVCache([keys], [values], COLUMNS), lengths, written, jnp.int32(WRITTEN), tokens)

    def xla(q, keys, values, lengths, written, seen):
        return attend_cache(q, keys, values, seen)

    def ours(q, keys, values, lengths, written, seen):
        return attend_in_order(q, keys, values, lengths, written, jnp.int32(WRITTEN))

    return microseconds([xla, ours], q, keys, values, lengths, written, seen)


def main() -> None:
    table = Table(title=f"microseconds; the cache has {COLUMNS} columns behind its positions")
    for column in ("what", "shape", "XLA", "ours", "ratio"):
        table.add_column(column, justify="right")

    def show(what: str, shape: str, times: list[float]) -> None:
        table.add_row(what, shape, *(f"{each:,.0f}" for each in times), f"{times[0] / times[1]:.1f}x")

    for rows, tokens, heads, kv_heads, length in SHAPES:
        shape = f"B {rows}, W {tokens}, {heads} heads of {kv_heads}, S {length:,}"
        show("attention", shape, attention(rows, tokens, heads, kv_heads, length))
    rng = np.random.default_rng(1)
    for rows in (1, 16):
        x = jnp.asarray(rng.normal(size=(rows, 896)), jnp.float32)
        times = microseconds([lambda x: jnp.sum(x * x, -1, keepdims=True), sum_of_squares], x)
        show("sum of squares", f"{rows} x 896", times)
        x = jnp.asarray(rng.normal(size=(rows, 151_936)), jnp.float32)
        times = microseconds([lambda x: jax.nn.logsumexp(x, -1, keepdims=True), log_sum_exp], x)
        show("log sum exp", f"{rows} x 151,936", times)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
