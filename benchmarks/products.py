"""The products with weights of a decode step on a CPU: XLA's, our kernel's, torch's.

    python benchmarks/products.py [--models 135m 0.5b 1.5b] [--rows 1 2 4 8 16 32 64 128 2048] [--repeats 5]

For each product of a layer (maps of one input together, as the decoder computes them) and for the head, and each
number of rows, the milliseconds of

    xla f32, xla bf16       x [B, in] @ W [in, out]
    left f32                W^T as the left operand, kept [out, in], and a barrier before the result is turned
    ours f32, ours bf16     our kernel (model/cc)
    torch f32, torch bf16   torch.nn.functional.linear on W [out, in]

They take turns, and the table has medians. Each works through several copies of the weights, more bytes than a
cache holds, as a decode step does. GB/s is of the weights. Needs the `test` extra (torch).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from thinkprm_jax.model.matmul import einsum
from thinkprm_jax.model.products import multiply
from thinkprm_jax.runtime import enable_compilation_cache

WORKED_THROUGH = 200e6  # bytes of float32 weights
MANY_ROWS = 128  # from here on the arithmetic takes longer than reading: two copies are enough
DTYPES = {"float32": "f32", "bfloat16": "bf16"}
MOST_ROWS_OF_A_HEAD = 128  # a sampler unembeds one token a row


@dataclasses.dataclass(frozen=True)
class Shape:
    width: int
    inner: int
    heads: int  # H x h
    kv_heads: int  # K x h
    vocabulary: int

    def products(self) -> dict[str, tuple[int, tuple[int, ...], bool]]:
        """name -> (in, the outs, whether the weights are [out, in] as an embedding is)."""
        return {
            "query, key, value": (self.width, (self.heads, self.kv_heads, self.kv_heads), False),
            "output": (self.heads, (self.width,), False),
            "gate, up": (self.width, (self.inner, self.inner), False),
            "down": (self.inner, (self.width,), False),
            "head": (self.width, (self.vocabulary,), True),
        }


MODELS = {
    "135m": Shape(576, 1_536, 576, 192, 49_152),
    "0.5b": Shape(896, 4_864, 896, 128, 151_936),
    "1.5b": Shape(1_536, 8_960, 1_536, 256, 151_936),
}


def by_xla(x: jax.Array, weights: Sequence[jax.Array], transposed: bool) -> list[jax.Array]:
    return [einsum("bi,oi->bo" if transposed else "bi,io->bo", x, w, x.dtype) for w in weights]


def by_xla_left(x: jax.Array, weights: Sequence[jax.Array]) -> list[jax.Array]:
    """Without the barrier the simplifier swaps the operands back."""
    return [jax.lax.optimization_barrier(einsum("oi,bi->ob", w, x, x.dtype)).T for w in weights]


def by_kernel(x: jax.Array, weights: Sequence[jax.Array], transposed: bool) -> list[jax.Array]:
    results = multiply(x, weights, x.dtype, transposed)
    return by_xla(x, weights, transposed) if results is None else results  # as the decoder does


def by_torch(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> Callable[[], object]:
    return lambda: [torch.nn.functional.linear(x, w) for w in weights]


class Weights:
    """Copies of the weights of one product, in every form that somebody wants them in."""

    def __init__(self, inputs: int, outputs: tuple[int, ...], transposed: bool) -> None:
        self.inputs, self.transposed, self.maps = inputs, transposed, len(outputs)
        self.copies = max(1, int(WORKED_THROUGH / (4 * inputs * sum(outputs))))
        numbers = np.random.default_rng(0).standard_normal(2**20, np.float32) * inputs**-0.5
        stored = [[np.resize(numbers, (out, inputs)) for out in outputs] for _ in range(self.copies)]
        self.left = {dtype: [[jnp.asarray(w, dtype) for w in copy] for copy in stored] for dtype in DTYPES}
        self.right = self.left if transposed else jax.tree.map(lambda w: jax.block_until_ready(w.T + 0), self.left)
        self.theirs = {
            dtype: [torch.from_numpy(w).to(getattr(torch, dtype)) for copy in stored for w in copy]
            for dtype in DTYPES
        }

    def used(self, rows: int) -> int:
        """Copies that one turn works through."""
        return min(self.copies, 2) if rows >= MANY_ROWS else self.copies

    def functions(self, rows: int) -> dict[str, Callable[[], object]]:
        """Each works through :meth:`used` copies."""
        used = self.used(rows)
        x = np.random.default_rng(1).standard_normal((rows, self.inputs), np.float32)
        flag = self.transposed
        found: dict[str, Callable[[], object]] = {}
        for dtype, short in DTYPES.items():
            here, theirs = jnp.asarray(x, dtype), torch.from_numpy(x).to(getattr(torch, dtype))
            found[f"xla {short}"] = compiled(lambda x, w: by_xla(x, w, flag), here, self.right[dtype][:used])
            if dtype == "float32":
                found["left f32"] = compiled(by_xla_left, here, self.left[dtype][:used])
            found[f"ours {short}"] = compiled(lambda x, w: by_kernel(x, w, flag), here, self.right[dtype][:used])
            found[f"torch {short}"] = by_torch(theirs, self.theirs[dtype][: used * self.maps])
        return found


def compiled(function: Callable, x: jax.Array, copies: list[list[jax.Array]]) -> Callable[[], object]:
    program = jax.jit(lambda x, copies: [function(x, weights) for weights in copies])
    return lambda: jax.block_until_ready(program(x, copies))


def measure(functions: dict[str, Callable[[], object]], copies: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of one product; a first turn compiles and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:
                times[name].append((time.perf_counter() - start) / copies * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--products", nargs="*", help="some of them: head, down, ...")
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 2, 4, 8, 16, 32, 64, 128, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    enable_compilation_cache()
    console = Console(width=130)
    columns = ("xla f32", "left f32", "ours f32", "torch f32", "xla bf16", "ours bf16", "torch bf16")
    for model in arguments.models:
        table = Table(title=f"{model}: milliseconds")
        for column in ("product", "rows", *columns, "xla / ours f32", "bf16", "GB/s f32", "bf16"):
            table.add_column(column, justify="left" if column == "product" else "right")
        for name, (inputs, outputs, transposed) in MODELS[model].products().items():
            if arguments.products and name not in arguments.products:
                continue
            weights = Weights(inputs, outputs, transposed)
            for rows in arguments.rows:
                if name == "head" and rows > MOST_ROWS_OF_A_HEAD:
                    continue
                found = measure(weights.functions(rows), weights.used(rows), arguments.repeats)
                size = inputs * sum(outputs)
                cells = [
                    f"{name} [{inputs} x {sum(outputs)}]",
                    str(rows),
                    *(f"{found[column]:.2f}" for column in columns),
                    f"{found['xla f32'] / found['ours f32']:.2f}",
                    f"{found['xla bf16'] / found['ours bf16']:.2f}",
                    f"{4 * size / found['ours f32'] / 1e6:.1f}",
                    f"{2 * size / found['ours bf16'] / 1e6:.1f}",
                ]
                print(*cells, sep="  ", flush=True)
                table.add_row(*cells)
        console.print(table)


if __name__ == "__main__":
    main()
