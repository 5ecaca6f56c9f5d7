"""Rows against pages: what decode steps read, what caches hold, and what a TPU's compiler makes of both.

    python benchmarks/pages.py simulate [--slots 16 64] [--requests 384] [--max-length 8192] [--scarce 0.25]
    python benchmarks/pages.py compile [--topology v5e:2x2] [--shape 1.5b] [--slots 64] [--context 2048] \\
        [--positions N] [--calls rows pages feed]

``simulate`` runs the sampler as it is: its queue, scheduler, prefix sharing, buckets and page tables, on a device
that is pretended: a chunk's steps sample tokens without a model, until the chain has the length that it was given.
Lengths of prompts and chains are random (log-normal; the figures say which), n chains of each prompt. Counted as
`SamplerStats` counts: bytes read and held, of the keys and values that rows had. ``--scarce`` also runs a pool of
that part of what all slots take at their longest.

``compile`` needs libtpu and no TPU. It compiles calls for a device of the topology and prints their memory. For a
decode step with every row at its longest: the cycles that the compiler estimates without the Pallas kernels (an
estimate, no measurement), what the kernels read, by hand, and the time of both, where kernels take as long as the
bandwidth on the device's data sheet says.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Generator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from device_common import SHAPES, load_mini_tokenizer, shape_config
from flax import nnx
from rich.console import Console
from rich.table import Table
from sampling import HloProgram

from thinkprm_jax.model.cache import KVCache
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.pages import PagedCache
from thinkprm_jax.model.pages_tpu import PAGE
from thinkprm_jax.sampler import Request, Sampler, Think
from thinkprm_jax.sampler.cache_kind import CacheChoice
from thinkprm_jax.sampler.decoding import ChunkOutput, Controls
from thinkprm_jax.sampler.device import device_functions
from thinkprm_jax.sampler.page_store import PIECE, PIECES
from thinkprm_jax.sampler.request import MAX_STOP_IDS, MAX_WATCHED

CONSOLE = Console(width=140)
CHUNK = 32
TINY = ModelConfig(
    vocab_size=64, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=2,
)  # fmt: skip
# Bytes a second, of the data sheet, and cycles a second.
DEVICES = {"TPU v5 lite": (819e9, 1.5e9)}
PROMPT, CHAIN = (300, 0.5), (900, 0.7)  # medians and sigmas of log-normal lengths
CHAINS_EACH = 4


# A pretended device


class PretendedDevice:
    """The functions of a device that moves nothing and samples token 1; a row's budget ends its chain."""

    def __init__(self, real: Any, chunk: int) -> None:
        self._real, self._chunk = real, chunk

    def feeds(self, *_: Any) -> bool:
        return False

    def cache_sharding(self, *_: Any) -> None:
        return None

    def prefill(self, _: Any, tokens: np.ndarray) -> tuple[int, ...]:
        return tokens.shape

    def extend(self, _: Any, tokens: np.ndarray, *__: Any) -> tuple[int, ...]:
        return tokens.shape

    def take(self, *_: Any) -> None:
        return None

    def insert(self, cache: Any, *_: Any) -> Any:
        return cache

    copy_rows = save = load = copy_pages = insert

    def feed_pages(self, _: Any, cache: Any, *__: Any) -> Any:
        return cache

    def model(self, parameters: Any) -> Any:
        return self._real.model(parameters)

    def decode(self, _: Any, cache: Any, controls: Controls) -> tuple[Any, ChunkOutput]:
        """As :func:`.decoding.decode` with narrow steps: each row feeds what is pending, then samples."""
        rows, columns = controls.pending.shape
        pending, budget = controls.pending_count.astype(int), controls.budgets.astype(int)
        needed = np.where(controls.active, pending - 1 + np.maximum(budget, 1), 0)
        ends = np.sort(needed[controls.active])[::-1]
        leave = max(int(controls.leave_below), 1)
        steps = int(min(self._chunk, ends[leave - 1])) if len(ends) >= leave else 0
        fed = np.minimum(needed, steps)
        sampled = np.where(controls.active, np.minimum(np.maximum(fed - pending + 1, 0), budget), 0)
        zeros = np.zeros(rows, np.int32)
        return cache, ChunkOutput(
            tokens=np.ones((rows, columns), np.int32), logprobs=np.zeros((rows, columns), np.float32),
            watched=np.zeros((rows, columns, MAX_WATCHED), np.float32), counts=sampled.astype(np.int32),
            fed=fed.astype(np.int32), active=controls.active & (needed > steps), busy=fed.astype(np.int32),
            drafted=zeros, accepted=zeros, trust=np.ones(rows, np.float32), steps=np.int32(steps),
            wide_steps=np.int32(0),
        )  # fmt: skip


def pretended(slots: int, max_length: int, cache: str, positions: int | None) -> Sampler:
    """A sampler on such a device; its pages are those of a TPU, read by the kernel."""
    config = dataclasses.replace(TINY, max_position_embeddings=max_length)
    chosen = CacheChoice("pages" if cache == "pages" else "rows", "kernel", "pretended")
    with (
        mock.patch("thinkprm_jax.sampler.engine.choose_cache", return_value=chosen),
        mock.patch("thinkprm_jax.sampler.engine.worker_count", return_value=1),
    ):
        sampler = Sampler(
            Decoder(config, rngs=nnx.Rngs(0)), load_mini_tokenizer(), slots=slots, max_length=max_length,
            chunk=CHUNK, cache_positions=positions, products="xla", drafts=0,
        )  # fmt: skip
    [worker] = sampler._workers
    worker.device = worker.store._device = PretendedDevice(worker.device, CHUNK)
    worker._fetch = lambda output: output
    return sampler


def requests(count: int, max_length: int, seed: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(-(-count // CHAINS_EACH)):
        length = int(np.clip(PROMPT[0] * np.exp(PROMPT[1] * rng.normal()), 16, max_length // 4))
        prompt = rng.integers(2, TINY.vocab_size, length).tolist()
        for _ in range(CHAINS_EACH):
            budget = int(np.clip(CHAIN[0] * np.exp(CHAIN[1] * rng.normal()), 16, max_length - length))
            found.append(Request(prompt, lambda budget=budget: script(budget)))
    return found[:count]


def script(budget: int) -> Generator[Think, Any, None]:
    yield Think(budget)


def simulate(slots: int, count: int, max_length: int, scarce: float) -> None:
    table = Table(
        "cache", "decode steps", "read / live", "held / live at the peak", "peak MB a slot at 28 KiB a position",
        "fed again", "host s",
        title=f"{slots} slots, max_length {max_length:,}, {count} chains, {CHAINS_EACH} of a prompt; prompts of "
        f"{PROMPT[0]}, chains of {CHAIN[0]} tokens in the median (sigma of the logarithm {PROMPT[1]}, {CHAIN[1]})",
    )  # fmt: skip
    for cache, part in (("rows", None), ("pages", None), ("pages", scarce)):
        positions = None if part is None else int(part * slots * max_length)
        sampler = pretended(slots, max_length, cache, positions)
        start = time.process_time()
        for _, result in sampler.run(requests(count, max_length, 0)):
            assert result.error is None, result.error
        stats, each = sampler.stats, sampler.position_bytes
        again = stats.reprefilled_tokens + stats.refed_tokens
        table.add_row(
            cache if part is None else f"{cache}, {part:.0%} of the rows at their longest",
            f"{stats.decode_steps:,}",
            f"{stats.cache_bytes_read / stats.cache_bytes_live:.2f}x",
            f"{stats.peak_cache_bytes / stats.peak_live_bytes:.2f}x",
            f"{stats.peak_cache_bytes / each * 28_672 / slots / 1e6:,.0f}",
            f"{again / stats.processed_tokens:.1%}",
            f"{time.process_time() - start:.1f}",
        )
    CONSOLE.print(table)


# What a TPU's compiler makes of it


def compile_calls(topology: str, shape: str, slots: int, context: int, positions: int, calls: list[str]) -> None:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # outside Google's cloud nobody answers
    from jax.experimental import topologies

    device = topologies.get_topology_desc(topology, "tpu").devices[0]
    config = shape_config(shape)
    bandwidth, rate = DEVICES.get(device.device_kind, (0.0, 0.0))
    table = Table(
        "call", "CPU s to compile", "given GB", "temporary GB", "Mcycles a step, kernels apart",
        "GB that kernels read", "ms a step: both",
        title=f"{shape}, bfloat16, {slots} slots of up to {context:,} positions, a pool of {positions:,}, "
        f"{device.device_kind}",
    )  # fmt: skip
    for call in calls:
        start = time.process_time()
        compiled = compile_call(config, device, call, slots, context, positions)
        seconds = time.process_time() - start
        memory = compiled.memory_analysis()
        row = [f"{seconds:.0f}", f"{memory.argument_size_in_bytes / 1e9:.2f}"]
        row.append(f"{memory.temp_size_in_bytes / 1e9:.2f}")
        if call != "feed":
            program = HloProgram(compiled.as_text())
            cycles = program.cycles(program.loop()[0], min)
            read = kernel_bytes(config, min(slots * context, positions)) if call == "pages" else 0
            row += [f"{cycles / 1e6:.2f}", f"{read / 1e9:.2f}"]
            row.append(f"{1e3 * (cycles / rate + read / bandwidth):.1f}" if rate else "-")
        table.add_row({"rows": "decode, rows", "pages": "decode, pages", "feed": "feed_pages"}[call], *row)
    CONSOLE.print(table)


def kernel_bytes(config: ModelConfig, positions: int) -> int:
    """Of a step that reads so many: queries, results and new tokens are a thousandth of it."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * 2 * positions


def compile_call(
    config: ModelConfig, device: jax.Device, call: str, slots: int, context: int, positions: int
) -> jax.stages.Compiled:
    """rows: decode with a cache of ``context`` positions a row; pages: with a pool of ``positions``, and tables
    for ``context``; feed: the larger call that feeds prompts to it."""
    place = jax.sharding.SingleDeviceSharding(device)

    def placed(tree: object) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16, dtype=jnp.bfloat16))
    graph, parameters = nnx.split(model)
    functions = device_functions(graph, None, CHUNK)

    def rows() -> KVCache:
        return KVCache.zeros(config, slots, context, CHUNK, jnp.bfloat16)

    def pages() -> PagedCache:
        table = slots, -(-(context + CHUNK + 128) // PAGE)
        return PagedCache.zeros(config, positions // PAGE + 1, PAGE, jnp.bfloat16, table, CHUNK, "kernel")

    cache = placed(jax.eval_shape(rows if call == "rows" else pages))
    # The code asks which backend it is for; this process has only the compiler of the one that it is for.
    with mock.patch("jax.default_backend", return_value="tpu"):
        if call == "feed":
            pieces = np.zeros((PIECES[0], PIECE), np.int32), np.zeros((PIECES[0], 2), np.int32)
            return functions.feed_pages.lower(placed(parameters), cache, *placed(pieces)).compile()
        return functions.decode.lower(placed(parameters), cache, placed(controls(slots))).compile()


def controls(slots: int) -> Controls:
    integer, real = np.zeros(slots, np.int32), np.zeros(slots, np.float32)
    values: dict[str, Any] = {
        "pending": np.zeros((slots, CHUNK), np.int32), "active": np.zeros(slots, bool),
        "stop_ids": np.zeros((slots, MAX_STOP_IDS), np.int32), "watch": np.zeros((slots, MAX_WATCHED), np.int32),
        "temperature": real, "top_p": real, "keys": np.zeros((slots, 2), np.uint32),
        "leave_below": np.zeros((), np.int32), "drafts": None,
    }  # fmt: skip
    return Controls(**{field.name: values.get(field.name, integer) for field in dataclasses.fields(Controls)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["simulate", "compile"])
    parser.add_argument("--slots", type=int, nargs="+", default=[64])
    parser.add_argument("--requests", type=int, default=384)
    parser.add_argument("--max-length", type=int, default=8192)
    parser.add_argument("--scarce", type=float, default=0.25)
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--positions", type=int, help="of the pool (default: all slots at their longest)")
    parser.add_argument("--calls", nargs="+", choices=["rows", "pages", "feed"], default=["rows", "pages", "feed"])
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    for slots in options.slots:
        if options.part == "simulate":
            simulate(slots, options.requests, options.max_length, options.scarce)
        else:
            positions = options.positions or slots * (options.context + CHUNK + 128)
            compile_calls(options.topology, options.shape, slots, options.context, positions, options.calls)


if __name__ == "__main__":
    main()
