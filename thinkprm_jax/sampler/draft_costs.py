"""What a wide step costs on this machine, and so how long drafts should be, if there should be any.

A decode step of few rows waits for memory: it reads every weight once, for one token a row or for eight. How much
longer it takes for eight depends on the processor, the kernels, the model and the number of rows, so it is
measured: the products of the model with weights, for the rows of a narrow step and of the wide ones. That takes a
second or two and happens once; what was measured is kept beside the compiled programs, in ``draft_costs.json``,
and can be read, changed and deleted there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.layer import Layer
from thinkprm_jax.model.products import kernel_version
from thinkprm_jax.runtime import cache_folder

logger = logging.getLogger(__name__)

# A smaller model does not wait for its weights, and would be measured and compiled for longer than it gains.
DRAFT_WEIGHT_BYTES = 64 * 2**20
LONGEST_DRAFT = 7  # eight tokens a row and step: what registers and matrix units come in
_DRAFTS = (LONGEST_DRAFT, 3)
# Of 24 real chains with the chains before of the same prompt to quote from (benchmarks/drafts.py): tokens a step
# where every draft is tried, and for one row alone, whose steps are narrow where it has none or a doubtful one,
# also the share of wide steps: (tokens a step, share of wide steps).
_EVERY = {7: (2.15, 1.0), 3: (1.88, 1.0)}
_CHOSEN = {7: ((2.20, 0.80), (1.93, 0.42)), 3: ((1.91, 0.83), (1.61, 0.40))}
_WORTH_WHILE = 1.05  # below this gain, by the measurement, there are none
_LAYERS = 8  # that are measured at most
_REPEATS = 4


@dataclasses.dataclass(frozen=True)
class DraftChoice:
    """tokens: of a draft, at most; 0: there are no drafts. price: what a wide step costs more, in narrow steps."""

    tokens: int
    price: float


NO_DRAFTS = DraftChoice(0, 0.0)


def longest_drafts(drafts: int | None, weight_bytes: int) -> int:
    """Tokens of the longest drafts that a sampler of this setting may ever try.

    Args:
      drafts: None: what pays. weight_bytes: of the model.
    """
    if drafts is not None:
        return drafts
    return LONGEST_DRAFT if weight_bytes >= DRAFT_WEIGHT_BYTES else 0


def choose_drafts(model: Decoder, rows: int, path: Path | None = None) -> DraftChoice:
    """The drafts with which ``rows`` rows decode fastest.

    Args:
      path: where measurements are kept; None: ``draft_costs.json`` among the compiled programs, if there is a
      place
        for those.
    """
    if jax.process_count() > 1:  # each process would measure something else
        return NO_DRAFTS
    folder = cache_folder()
    path = path or (folder / "draft_costs.json" if folder else None)
    seconds = step_seconds(model, rows, path)
    best, most = NO_DRAFTS, _WORTH_WHILE
    for tokens in _DRAFTS:
        price = max(seconds[tokens] / seconds[0] - 1, 0.0)
        gain = expected_gain(tokens, price, rows)
        if gain > most:
            best, most = DraftChoice(tokens, price), gain
    logger.info("drafts for %d rows: %d tokens (a wide step costs %.2f more)", rows, best.tokens, best.price)
    return best


def expected_gain(tokens: int, price: float, rows: int) -> float:
    """How many times as fast drafts of ``tokens`` tokens make decoding, at this price of a wide step."""
    cases = _CHOSEN[tokens] if rows == 1 else (_EVERY[tokens],)
    return max(taken / (1 + wide * price) for taken, wide in cases)


def step_seconds(model: Decoder, rows: int, path: Path | None) -> dict[int, float]:
    """Seconds of a step's products, by the tokens of its drafts (0: a narrow step); measured, unless ``path`` has
    them."""
    name = _name(model, rows)
    known = _read(path)
    try:
        return {tokens: float(known[name][str(tokens)]) for tokens in (0, *_DRAFTS)}
    except (KeyError, TypeError, ValueError):
        pass
    widths = (0, *_DRAFTS)
    measured = dict(zip(widths, _measure(model, [rows * (tokens + 1) for tokens in widths]), strict=True))
    if path is not None:
        # Others may have measured something in the meantime.
        _write(path, {**_read(path), name: {str(tokens): round(each, 6) for tokens, each in measured.items()}})
    return measured


def _name(model: Decoder, rows: int) -> str:
    """What a measurement depends on."""
    device, config = jax.devices()[0], model.config
    query = model.layers[0].attention.query.kernel[...]
    shape = f"{config.num_layers}x{config.hidden_size}x{config.intermediate_size}x{config.vocab_size}"
    kernel = f"native-{kernel_version()}" if model.products == "native" else model.products
    kinds = f"{query.dtype.name}/{jnp.dtype(model.dtype).name}, {kernel} products"
    processors = os.cpu_count() if device.platform == "cpu" else jax.device_count()
    return f"{device.device_kind} x{processors}, jax {jax.__version__}, {shape} {kinds}, {rows} rows"


def _read(path: Path | None) -> dict[str, dict[str, float]]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, table: dict[str, dict[str, float]]) -> None:
    beside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        logger.warning("what drafts cost is not kept: %s", error)


def _measure(model: Decoder, counts: Sequence[int]) -> list[float]:
    """Seconds of the products of so many tokens each, the shortest of some times; in turns, since a machine is now
    slower, now faster."""
    layers = [nnx.split(layer) for layer in list(model.layers)[:_LAYERS]]
    top = nnx.split(model)
    share = model.config.num_layers / len(layers)
    states = [jnp.full((tokens, model.config.hidden_size), 0.01, jnp.float32) for tokens in counts]

    def through_layers(x: jax.Array) -> jax.Array:
        for graph, weights in layers:
            x = _layer(graph, weights, x)
        return x

    times: list[list[float]] = [[] for _ in counts]
    for _ in range(1 + _REPEATS):  # the first one compiles
        for x, seconds in zip(states, times, strict=True):
            seconds.append(share * _seconds(through_layers, x) + _seconds(functools.partial(_head, *top), x))
    return [min(seconds[1:]) for seconds in times]


def _seconds(run: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(x))
    return time.perf_counter() - start


@functools.partial(jax.jit, static_argnums=0)
def _layer(graph: nnx.GraphDef, weights: nnx.State, x: jax.Array) -> jax.Array:
    layer: Layer = nnx.merge(graph, weights)
    half = layer.attention.head_dim // 2
    q, k, v = layer.attention.project(layer.attention_norm(x), jnp.ones((1, half)), jnp.zeros((1, half)))
    some = jnp.sum(k) + jnp.sum(v)  # so that they are computed
    x = x + layer.attention.merge(q + 1e-9 * some)
    return x + layer.mlp(layer.mlp_norm(x))


@functools.partial(jax.jit, static_argnums=0)
def _head(graph: nnx.GraphDef, weights: nnx.State, x: jax.Array) -> jax.Array:
    return jnp.max(nnx.merge(graph, weights).unembed(x), axis=-1)
