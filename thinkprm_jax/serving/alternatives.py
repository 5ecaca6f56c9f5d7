"""The likeliest tokens at each place of a text that was written: one more pass over it, for those who ask."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from thinkprm_jax.model.decoder import Decoder, use_products
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.sampler.buckets import length_buckets

MOST = 20  # alternatives, OpenAI's limit
_PLACES = 16  # whose logits are held at once

Ranked = list[tuple[int, float]]  # (id, log-probability), the likeliest first


class Alternatives:
    """What else a sampler's model would have written. Texts wait for each other; others go on meanwhile."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._sizes = length_buckets(64, sampler.max_length)
        self._lock = threading.Lock()

    def find(self, prompt: Sequence[int], ids: Sequence[int], count: int) -> list[Ranked]:
        """Of each of the ids the ``count`` likeliest tokens there, at temperature 1, before top_k and top_p.

        Their log-probabilities are those of a prefill: in the last digits others than what the decode loop said.
        """
        if not ids:
            return []
        tokens = [*prompt, *ids][:-1]  # nothing is asked of what stands behind the last one
        size = next(size for size in self._sizes if size >= len(tokens))
        padded = np.zeros((1, size), np.int32)
        padded[0, : len(tokens)] = tokens
        first = len(prompt) - 1
        places = np.arange(first, first + -(-len(ids) // _PLACES) * _PLACES)
        graph, weights = self._sampler.split_model()
        found: list[Ranked] = []
        with self._lock:
            hidden = _hidden(graph, weights, padded)
            for start in range(0, len(places), _PLACES):
                chosen = np.minimum(places[start : start + _PLACES], size - 1)
                top, logprobs = jax.device_get(_likeliest(graph, weights, hidden, chosen))
                rows = zip(top[:, :count].tolist(), logprobs[:, :count].tolist(), strict=True)
                found += [list(zip(*row, strict=True)) for row in rows]
        return found[: len(ids)]


@functools.partial(jax.jit, static_argnames="graph")
def _hidden(graph: nnx.GraphDef[Decoder], weights: nnx.State, tokens: jax.Array) -> jax.Array:
    """float32 [T, D] of tokens int [1, T]."""
    return _model(graph, weights).hidden(tokens)[0]


@functools.partial(jax.jit, static_argnames="graph")
def _likeliest(
    graph: nnx.GraphDef[Decoder], weights: nnx.State, hidden: jax.Array, places: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Behind each of the places, int [N]: ids int32 and log-probabilities float32, [N, MOST] or all of V."""
    logits = _model(graph, weights).unembed(hidden[places][None])[0]
    values, ids = jax.lax.top_k(logits, min(MOST, logits.shape[-1]))
    return ids, values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def _model(graph: nnx.GraphDef[Decoder], weights: nnx.State) -> Decoder:
    model = nnx.merge(graph, weights)
    use_products(model, "xla")
    return model
