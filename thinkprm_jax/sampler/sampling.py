"""From logits to tokens: every row by its own temperature, top-k, top-p, key and position.

All settings are arrays, so no setting ever compiles anything; the parts that only some rows need run under
``lax.cond`` on "does any row need it". Nothing sorts the vocabulary. A token is drawn by inverting the cumulative
distribution, from one uniform number, in the order of the vocabulary. Top-k and top-p look at a row's largest
candidates: almost always what is kept lies among them, which a row can tell. Where it does not (a nucleus of many
tokens), the thresholds are found by bisection on the bits of all logits. Both ways keep the same tokens and draw
the same one; they add in another order, so that a uniform number within rounding of a border may fall on its other
side. Which way a row goes depends on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from thinkprm_jax.model.decode_step import largest, log_sum_exp
from thinkprm_jax.model.products import Products

_BLOCK = 128  # tokens: the lanes of a TPU
_CANDIDATES = 128


def sample(
    logits: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array,
    top_p: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
    products: Products = "xla",
) -> jax.Array:
    """Draws one token per row.

    Args:
      logits: float32 [B, V].
      temperature: float32 [B]; 0 takes the most likely token. Below 1e-6 it is 1e-6, so that nothing overflows.
      top_k: int [B], 0 is off. top_p: float32 [B], 1 is off. Applied in the order temperature, top-k, top-p.
      keys: uint32 [B, 2], the row's random key; positions: int [B], the position the token will stand at.
      products: of the model; beside "native" ones candidates are found by our kernel, too: the same ones.
    Returns: int32 [B].
    """
    greedy = _most_likely(logits)
    random = temperature > 0
    divisor = jnp.where(random, jnp.maximum(temperature, 1e-6), 1.0)[:, None]

    def draw() -> jax.Array:
        uniform = _uniform(keys, positions)
        filtered = (top_k > 0) | (top_p < 1)
        token, complete = jax.lax.cond(
            jnp.any(random & filtered),
            lambda: _draw_candidate(logits, divisor, top_k, top_p, uniform, products),
            lambda: (greedy, jnp.zeros_like(random)),
        )
        left = random & ~(filtered & complete)

        def whole() -> jax.Array:
            kept = jax.lax.cond(
                jnp.any(left & filtered),
                lambda: _keep_top(logits / divisor, top_k, top_p),
                lambda: logits / divisor,
            )
            return _draw(kept, uniform)

        token = jnp.where(left, jax.lax.cond(jnp.any(left), whole, lambda: greedy), token)
        return jnp.where(random, token, greedy)

    return jax.lax.cond(jnp.any(random), draw, lambda: greedy)


def log_probabilities(logits: jax.Array, ids: jax.Array, products: Products = "xla") -> jax.Array:
    """log-softmax of float32 logits [B, V] at ids int [B, N] -> float32 [B, N]. products: of the model; with our
    kernel a row's result does not depend on B."""
    total = log_sum_exp(logits) if products == "native" else None
    if total is None:
        total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return jnp.take_along_axis(logits, ids, axis=-1) - total


def _block_maxima(logits: jax.Array) -> jax.Array:
    """The largest of every ``_BLOCK`` logits, [B, V / _BLOCK] rounded up.

    A plain maximum vectorises everywhere; XLA's argmax over a whole vocabulary is a scalar loop on CPUs.
    """
    batch, vocab = logits.shape
    blocks = -(-vocab // _BLOCK)
    padded = jnp.pad(logits, ((0, 0), (0, blocks * _BLOCK - vocab)), constant_values=-jnp.inf)
    return jnp.max(padded.reshape(batch, blocks, _BLOCK), axis=-1)


def _most_likely(logits: jax.Array) -> jax.Array:
    """argmax, the first of equals, int32 [B]: the best block and then the best token in it."""
    if logits.shape[-1] <= _BLOCK:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    block = jnp.argmax(_block_maxima(logits), axis=-1)
    row, begin = _take_block(logits, block)
    return (begin + jnp.argmax(row, axis=-1)).astype(jnp.int32)


def _take_block(logits: jax.Array, block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Block ``block[b]`` of row b, [B, _BLOCK], and where it begins; the last one reaches back to be as long."""
    begin = jnp.minimum(block * _BLOCK, logits.shape[-1] - _BLOCK)
    return jax.vmap(lambda row, at: jax.lax.dynamic_slice(row, (at,), (_BLOCK,)))(logits, begin), begin


def _uniform(keys: jax.Array, positions: jax.Array) -> jax.Array:
    def one(key: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(key, position))

    return jax.vmap(one)(keys, positions)


def _candidates(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The ``_CANDIDATES`` largest logits of every row, falling, and their ids, int32; all, where V is no larger.

    They lie in the ``_CANDIDATES`` blocks with the largest maxima, so that only those are looked through.
    """
    vocab = logits.shape[-1]
    if vocab <= _CANDIDATES * _BLOCK:
        values, ids = jax.lax.top_k(logits, min(_CANDIDATES, vocab))
        return values, ids
    _, blocks = jax.lax.top_k(_block_maxima(logits), _CANDIDATES)

    def look_through(row: jax.Array, blocks: jax.Array) -> tuple[jax.Array, jax.Array]:
        begins = jnp.minimum(blocks * _BLOCK, vocab - _BLOCK)
        taken = jax.vmap(lambda at: jax.lax.dynamic_slice(row, (at,), (_BLOCK,)))(begins)
        ids = begins[:, None] + jnp.arange(_BLOCK)
        taken = jnp.where(ids < (blocks * _BLOCK)[:, None], -jnp.inf, taken)  # of the block before the last
        values, places = jax.lax.top_k(taken.reshape(-1), _CANDIDATES)
        return values, begins[places // _BLOCK] + places % _BLOCK

    return jax.vmap(look_through)(logits, blocks)


def _draw_candidate(
    logits: jax.Array,
    divisor: jax.Array,
    top_k: jax.Array,
    top_p: jax.Array,
    uniform: jax.Array,
    products: Products,
) -> tuple[jax.Array, jax.Array]:
    """Draws among the candidates, int32 [B]; and whether all that top-k and top-p keep is among them, bool [B].

    Args:
      divisor: float32 [B, 1], the temperature. uniform: float32 [B].
    """
    vocab = logits.shape[-1]
    if products == "native":
        values, ids, every = largest(logits, divisor, min(_CANDIDATES, vocab))
    else:
        values, ids = _candidates(logits)
        every = jnp.sum(jnp.exp(logits / divisor - values[:, :1] / divisor), axis=-1, keepdims=True)
    scaled = values / divisor
    weights = jnp.exp(scaled - scaled[:, :1])
    k = jnp.clip(top_k[:, None], 1, scaled.shape[-1])
    floor = jnp.where(top_k[:, None] > 0, jnp.take_along_axis(scaled, k - 1, axis=-1), -jnp.inf)
    mass = jnp.where(top_k[:, None] > 0, jnp.sum(weights, -1, keepdims=True, where=scaled >= floor), every)
    enough = jnp.cumsum(weights, axis=-1) >= top_p[:, None] * mass
    nucleus = jnp.take_along_axis(scaled, jnp.argmax(enough, axis=-1)[:, None], axis=-1)
    floor = jnp.where(top_p[:, None] < 1, jnp.maximum(floor, nucleus), floor)
    # Tokens that tie with the last one kept are kept: the last candidate must lie below it, or be the last of all.
    complete = (top_p[:, None] >= 1) | enough[:, -1:]
    complete &= (floor > scaled[:, -1:]) | (scaled.shape[-1] == vocab)
    complete &= (top_k[:, None] <= scaled.shape[-1]) | (scaled.shape[-1] == vocab)
    order, weights = jax.lax.sort((ids, jnp.where(scaled >= floor, weights, 0.0)), num_keys=1)
    cumulative = jnp.cumsum(weights, axis=-1)
    place = _first_above(cumulative, uniform[:, None] * cumulative[:, -1:], weights)
    return jnp.take_along_axis(order, place, axis=-1)[:, 0].astype(jnp.int32), complete[:, 0]


def _draw(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverse of the cumulative distribution: first the block of the vocabulary, then the token in it."""
    batch, vocab = logits.shape
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    blocks = -(-vocab // _BLOCK)
    weights = jnp.pad(weights, ((0, 0), (0, blocks * _BLOCK - vocab))).reshape(batch, blocks, _BLOCK)
    sums = jnp.sum(weights, axis=-1)
    cumulative = jnp.cumsum(sums, axis=-1)
    target = uniform[:, None] * cumulative[:, -1:]
    block = _first_above(cumulative, target, sums)
    before = jnp.take_along_axis(cumulative - sums, block, axis=-1)
    row = jnp.take_along_axis(weights, block[..., None], axis=1)[:, 0]
    token = _first_above(jnp.cumsum(row, axis=-1), target - before, row)
    return (block * _BLOCK + token)[:, 0].astype(jnp.int32)


def _first_above(cumulative: jax.Array, target: jax.Array, weights: jax.Array) -> jax.Array:
    """First index [B, 1] whose cumulative weight exceeds target; rounding never leads to a weight of zero."""
    index = jnp.sum(cumulative <= target, axis=-1, keepdims=True)
    positive = weights > 0
    last = weights.shape[-1] - 1 - jnp.argmax(positive[:, ::-1], axis=-1)[:, None]
    index = jnp.minimum(index, last)
    # An index of zero weight below `last` can only come from a rounded target: step to the next positive one.
    at_or_after = positive & (jnp.arange(weights.shape[-1])[None] >= index)
    return jnp.argmax(at_or_after, axis=-1)[:, None]


def _keep_top(logits: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
    """Logits outside a row's top-k or nucleus become -inf; ties with the last kept token are kept."""
    vocab = logits.shape[-1]
    order = _monotone(logits)
    k = jnp.where(top_k > 0, jnp.minimum(top_k, vocab), vocab)[:, None]
    everything = jnp.zeros_like(order[:, :1])  # like it also inside shard_map, where it varies over devices
    floor = jax.lax.cond(
        jnp.any(k < vocab),
        lambda: _largest_threshold(order, lambda kept: jnp.sum(kept, axis=-1, keepdims=True) >= k),
        lambda: everything,
    )
    weights = jnp.where(order >= floor, jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)), 0.0)
    needed = top_p[:, None] * jnp.sum(weights, axis=-1, keepdims=True)

    def enough(nucleus: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(nucleus, weights, 0.0), axis=-1, keepdims=True) >= needed

    nucleus = jax.lax.cond(jnp.any(top_p < 1), lambda: _largest_threshold(order, enough), lambda: everything)
    floor = jnp.where(top_p[:, None] < 1, jnp.maximum(floor, nucleus), floor)
    return jnp.where(order >= floor, logits, -jnp.inf)


def _monotone(x: jax.Array) -> jax.Array:
    """float32 -> uint32 with the same order."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _largest_threshold(order: jax.Array, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The largest uint32 t [B, 1] for which ``enough(order >= t)`` holds; it must hold for t = 0."""

    def bit(i: jax.Array, threshold: jax.Array) -> jax.Array:
        candidate = threshold | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        return jnp.where(enough(order >= candidate), candidate, threshold)

    return jax.lax.fori_loop(0, 32, bit, jnp.zeros_like(order[:, :1]))
