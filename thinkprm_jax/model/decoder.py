"""The decoder of the Qwen2, Qwen3, Llama and Mistral families in Flax NNX.

The residual stream, norms, softmax and logits are float32; matrix products take their inputs in ``dtype`` and
accumulate in float32. Layers are separate list entries, not one stacked array: a decode step then reads every
weight in place (a slice of a stacked array is a copy on CPUs), and the sampler unrolls them anyway.

Three entry points share the parameters: :meth:`Decoder.__call__` (logits of whole sequences, training and
parity), :meth:`Decoder.prefill` (keys and values of prompts) and :meth:`Decoder.step` (a few tokens per row).
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from thinkprm_jax.errors import UserError
from thinkprm_jax.model.all_layers import run_layers
from thinkprm_jax.model.attention import attend_cache, attend_extension
from thinkprm_jax.model.cache import KVCache, readable, write_columns
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decode_step import attend_in_order, attend_pieces, can_attend
from thinkprm_jax.model.embedding import Embedding, gather_rows
from thinkprm_jax.model.heads import ScoreHead, ValueHead
from thinkprm_jax.model.kernels import Execution
from thinkprm_jax.model.layer import Layer, scan_layers
from thinkprm_jax.model.linear import Build, Linear
from thinkprm_jax.model.lora import LoraSpec
from thinkprm_jax.model.matmul import contract, einsum
from thinkprm_jax.model.norm import RMSNorm
from thinkprm_jax.model.pages import PagedCache, attend_pages, page_places, write_pages
from thinkprm_jax.model.products import Products, multiply
from thinkprm_jax.model.quantization import Quantization
from thinkprm_jax.model.rope import rope


class Decoder(nnx.Module):
    """A causal language model; parameters are named as :mod:`.parameters` lists them."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
        param_dtype: DTypeLike = jnp.float32,
        dtype: DTypeLike = jnp.float32,
        lora: LoraSpec | None = None,
        execution: Execution | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        """``lora``: adapters beside the named maps, zero until they are set. ``execution``: of whole sequences.
        ``quantization``: of the weights; they have no gradients then."""
        build = Build(config, rngs, param_dtype, dtype, lora, quantization)
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.execution = Execution() if execution is None else execution
        self.products: Products = "xla"
        self.quantization = quantization
        self.embed = Embedding(config, rngs, param_dtype, quantization)
        self.layers = nnx.List([Layer(build) for _ in range(config.num_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, param_dtype)
        scores = config.score_labels
        headless = config.tie_embeddings or scores is not None
        self.head = None if headless else build.linear(config.hidden_size, config.vocab_size, False)
        float_build = build.floats()
        self.score = (
            None if scores is None else ValueHead(float_build) if scores == 1 else ScoreHead(float_build, scores)
        )

    def __call__(
        self, tokens: jax.Array, positions: jax.Array | None = None, segment_ids: jax.Array | None = None
    ) -> jax.Array:
        """Logits of whole sequences.

        Args:
          tokens: int [B, T]. Causal, so right padding needs no mask: it is never seen by what precedes it.
          positions: int [B, T], default 0..T-1 in every row; they restart in packed rows.
          segment_ids: int [B, T]; tokens attend only within equal ids (packed rows).
        Returns: float32 [B, T, V].
        """
        return self.unembed(self.hidden(tokens, positions, segment_ids))

    def hidden(
        self,
        tokens: jax.Array,
        positions: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """The same without the head: float32 [B, T, D] after the final norm. ``dropout_key``: of the adapters."""
        return self.norm(self._sequence(tokens, positions, segment_ids, dropout_key)[0])

    def prefill(self, tokens: jax.Array) -> KVCache:
        """Keys and values of tokens int [B, T] from position 0, as a cache of length T in ``dtype``.

        No logits: the sampler feeds a prompt's last token through :meth:`step`.
        """
        assert not self.execution.scan, "layers that are scanned are for training"
        _, keys, values = self._sequence(tokens, None, None)
        return KVCache(
            keys=[k.transpose(0, 2, 1, 3).astype(self.dtype) for k in keys],
            values=[v.transpose(0, 2, 1, 3).astype(self.dtype) for v in values],
        )

    def extend(self, tokens: jax.Array, lengths: jax.Array, prefix: KVCache) -> KVCache:
        """Keys and values of tokens that stand behind a known prefix: :meth:`prefill` from another position.

        Args:
          tokens: int [B, T], right padded; row b stands at positions lengths[b] and following.
          lengths: int [B]; prefix: [B, K, P, h] a layer, of which the first lengths[b] positions count.
        Returns: the new ones alone, a cache of length T in ``dtype``.
        """
        positions = lengths[:, None] + jnp.arange(tokens.shape[1])
        # Computed once: without the barrier XLA fuses the cosines into every use.
        cos, sin = jax.lax.optimization_barrier(rope(self.config, positions))
        x = self.execution.look_up(self.embed, self.config.hidden_size, tokens)
        keys, values = [], []
        for layer, old_k, old_v in zip(self.layers, prefix.keys, prefix.values, strict=True):
            q, *new = layer.attention.project(layer.attention_norm(x), cos, sin)
            k, v = (y.transpose(0, 2, 1, 3).astype(self.dtype) for y in new)
            old = (old_k.astype(self.dtype), old_v.astype(self.dtype))
            x = x + layer.attention.merge(attend_extension(q, k, v, old, lengths, self.dtype))
            x = x + layer.mlp(layer.mlp_norm(x))
            keys.append(k)
            values.append(v)
        return KVCache(keys, values)

    def extend_rows(self, tokens: jax.Array, pieces: jax.Array, cache: KVCache) -> KVCache:
        """:meth:`extend` of pieces of several texts, in their places, by our kernels: keys and values go straight
        into the cache.

        What a token gets depends on the tokens before it alone, bit for bit: not on where a piece begins or ends,
        nor on the pieces beside it. A call takes as long as its tokens and what stands before them, however long
        the cache is.

        Args:
          tokens: int [N], one piece behind the other, then padding.
          pieces: int [M, 3]: row of the cache, place of the first token, how many; start + count <= S.
          cache: no decode call is under way, so its columns hold nothing.
        Returns: the cache with the tokens written.
        Raises:
          ValueError: there is no kernel for it (:func:`can_attend`).
        """
        ends = jnp.cumsum(pieces[:, 2])
        number = jnp.arange(tokens.shape[0])
        piece = jnp.minimum(jnp.searchsorted(ends, number, side="right"), pieces.shape[0] - 1)
        positions = pieces[piece, 1] + number - (ends - pieces[:, 2])[piece]
        # Computed once: without the barrier XLA fuses the cosines into every use.
        cos, sin = (x[0] for x in jax.lax.optimization_barrier(rope(self.config, positions[None])))
        return self._feed(tokens, pieces, (cos, sin), cache, states=False)[1]

    def step_in_place(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        active: jax.Array,
        rotations: tuple[jax.Array, jax.Array],
        cache: KVCache | PagedCache,
    ) -> tuple[jax.Array, KVCache | PagedCache]:
        """:meth:`step` by our kernels or over pages, without columns: every token goes to its place in its row at
        once.

        Args:
          tokens: int [B, W]. positions: int [B], where tokens[:, 0] stand. What is behind a row's last token that
            counts is written over by later steps, and never read before.
          active: bool [B]; of the others nothing is written, and their state is none.
          rotations: as of :meth:`step`. cache: B rows.
        Returns, Raises: as of :meth:`step`, :meth:`extend_rows`.
        """
        batch, width = tokens.shape
        if isinstance(cache, PagedCache):  # the others have page 0
            starts, table = jnp.where(active, positions, 0), jnp.where(active[:, None], cache.table, 0)
            return self._feed_pages(tokens, starts, table, rotations, cache)
        rows = jnp.where(active, jnp.arange(batch), -1)
        pieces = jnp.stack([rows, positions, jnp.full(batch, width)], axis=1)
        cos, sin = (x.reshape(batch * width, *x.shape[2:]) for x in rotations)
        return self._feed(tokens.reshape(-1), pieces, (cos, sin), cache)

    def _feed(
        self,
        tokens: jax.Array,
        pieces: jax.Array,
        rotations: tuple[jax.Array, jax.Array],
        cache: KVCache,
        states: bool = True,
    ) -> tuple[jax.Array, KVCache]:
        """Tokens int [N] of pieces to their places. Returns: their states [N, D] after the final norm, where they
        are wanted, and the cache."""
        x = self.embed(tokens)
        pairs = list(zip(cache.keys, cache.values, strict=True))
        done = run_layers(self.config, self.layers, self.norm, x, rotations, pieces, pairs, states)
        if done is not None:
            x, pairs = done
            return x, KVCache([k for k, _ in pairs], [v for _, v in pairs], cache.steps)
        keys, values = [], []
        for layer, *old in zip(self.layers, cache.keys, cache.values, strict=True):
            q, k, v = layer.attention.project(layer.attention_norm(x), *rotations)
            attended, new_keys, new_values = attend_pieces(q, (k, v), (old[0], old[1]), pieces)
            x = x + layer.attention.merge(attended)
            x = x + layer.mlp(layer.mlp_norm(x))
            keys.append(new_keys)
            values.append(new_values)
        return self.norm(x), KVCache(keys, values, cache.steps)

    def extend_pages(self, tokens: jax.Array, pieces: jax.Array, cache: PagedCache) -> PagedCache:
        """:meth:`extend` of pieces of several texts, in their places in pages.

        Args:
          tokens: int [M, T], right padded. What padding gives stands behind the row's tokens, or in page 0, and is
            written over before it is read.
          pieces: int [M, 2]: row of the table, or -1: there is no piece; place of the first token. Pieces of a row
            that follow each other may stand in one call.
        """
        rows, starts = pieces[:, 0], pieces[:, 1]
        table = jnp.where(rows[:, None] >= 0, jnp.asarray(cache.table)[jnp.maximum(rows, 0)], 0)
        positions = starts[:, None] + jnp.arange(tokens.shape[1])
        # Computed once: without the barrier XLA fuses the cosines into every use.
        rotations = jax.lax.optimization_barrier(rope(self.config, positions))
        return self._feed_pages(tokens, starts, table, rotations, cache)[1]

    def _feed_pages(
        self,
        tokens: jax.Array,
        starts: jax.Array,
        table: jax.Array,
        rotations: tuple[jax.Array, jax.Array],
        cache: PagedCache,
    ) -> tuple[jax.Array, PagedCache]:
        """Tokens int [M, W] to their places from starts[m] on in the pages table[m]. Returns: their states
        [M x W, D] after the final norm, and the cache."""
        batch, width = tokens.shape
        cos, sin = (x.reshape(batch * width, *x.shape[2:]) for x in rotations)
        places = page_places(table, starts, width, cache.page)
        x = self.embed(tokens.reshape(-1))
        pools = []
        for layer, pages in zip(self.layers, cache.pages, strict=True):
            q, k, v = layer.attention.project(layer.attention_norm(x), cos, sin)
            pages = write_pages(cache.attention, pages, k, v, places)
            q = q.reshape(batch, width, *q.shape[1:])
            attended = attend_pages(cache.attention, q, pages, table, starts)
            x = x + layer.attention.merge(attended.reshape(batch * width, *attended.shape[2:]))
            x = x + layer.mlp(layer.mlp_norm(x))
            pools.append(pages)
        return self.norm(x), dataclasses.replace(cache, pages=pools)

    def steps_in_place(self, cache: KVCache) -> bool:
        """Whether :meth:`extend_rows` and :meth:`step_in_place` are for this cache of rows and run here."""
        return self.products == "native" and can_attend(self.config.head_dim, cache.keys[0].dtype)

    def rotations(self, lengths: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """cos and sin of ``count`` positions from ``lengths`` on, float32 [B, count, 1, h/2], for :meth:`step`."""
        return rope(self.config, lengths[:, None] + jnp.arange(count))

    def step(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        written: jax.Array,
        column: jax.Array,
        rotations: tuple[jax.Array, jax.Array],
        cache: KVCache,
    ) -> tuple[jax.Array, KVCache]:
        """A step of a decode call: W tokens per row, one behind the other, against the row's cache.

        Args:
          tokens: int [B, W].
          lengths: int [B], tokens of every row in the cache when the call began.
          written: bool [B, C], in which columns of the call the row has tokens; in none from ``column`` on.
          column: int [], the W tokens go to the columns from here on.
          rotations: of the tokens' positions, [B, W, 1, h/2] each. cache: B rows with C columns.
        Returns: the float32 state [B x W, D] after the final norm (logits: :meth:`unembed`), the updated cache.
        """
        batch, width = tokens.shape
        cos, sin = (x.reshape(batch * width, *x.shape[2:]) for x in rotations)
        seen = readable(cache, lengths, written, column, width)  # computed if XLA's attention is taken
        x = self.embed(tokens.reshape(-1))
        keys, values = [], []
        for layer, layer_keys, layer_values in zip(self.layers, cache.keys, cache.values, strict=True):
            q, k, v = layer.attention.project(layer.attention_norm(x), cos, sin)
            q, k, v = (y.reshape(batch, width, *y.shape[1:]) for y in (q, k, v))
            layer_keys = write_columns(cache, layer_keys, k, column)
            layer_values = write_columns(cache, layer_values, v, column)
            attended = None
            if self.products == "native":
                attended = attend_in_order(q, layer_keys, layer_values, lengths, written, column)
            if attended is None:
                attended = attend_cache(q, layer_keys, layer_values, seen)
            x = x + layer.attention.merge(attended.reshape(batch * width, *attended.shape[2:]))
            x = x + layer.mlp(layer.mlp_norm(x))
            keys.append(layer_keys)
            values.append(layer_values)
        return self.norm(x), KVCache(keys, values, cache.steps)

    def unembed(self, x: jax.Array) -> jax.Array:
        """[..., D] after the final norm -> float32 logits [..., V]; a reward model has none."""
        if self.score is not None:
            raise ValueError("this decoder has a head of scores and none over the vocabulary")
        if self.head is not None:
            return self.head(x)
        table, scale = self.embed.embedding[...], self.embed.embedding_scale
        scales = None if scale is None else [scale[...]]
        native = self.products == "native"
        products = multiply(x, [table], self.dtype, transposed=True, scales=scales) if native else None
        if products is not None:
            return products[0]
        spec = f"{'bt'[: x.ndim - 1]}d,vd->{'bt'[: x.ndim - 1]}v"
        if scale is not None:  # whole numbers have no gradient
            return einsum(spec, x, table, self.dtype) * scale[...]
        return contract(spec, x, table, self.dtype)

    def head_rows(self, ids: jax.Array) -> jax.Array:
        """What a state after the final norm is multiplied with for the logits of these ids int [N]: [N, D],
        float32 where weights are quantised."""
        if self.head is None:
            scale = self.embed.embedding_scale
            rows = gather_rows(self.embed.embedding[...], ids)
            return rows if scale is None else rows.astype(jnp.float32) * scale[...][ids][:, None]
        rows, scale = jnp.take(self.head.kernel[...], ids, axis=1).T, self.head.kernel_scale
        return rows if scale is None else rows.astype(jnp.float32) * scale[...][ids][:, None]

    def _sequence(
        self,
        tokens: jax.Array,
        positions: jax.Array | None,
        segment_ids: jax.Array | None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        """Residual stream [B, T, D] before the final norm, and every layer's k, v [B, T, K, h]; layers that are
        scanned give none."""
        length, window = tokens.shape[1], self.config.window
        if positions is None and window is not None and length > window:
            raise UserError(f"{length} tokens are more than the {window} that every layer of this model sees")
        cos, sin = rope(self.config, np.arange(length)[None] if positions is None else positions)
        x = self.execution.look_up(self.embed, self.config.hidden_size, tokens)
        keys: list[jax.Array] = []
        values: list[jax.Array] = []
        if self.execution.scan:
            x = scan_layers(self.layers[0], x, cos, sin, segment_ids, dropout_key, self.execution)
            return x, keys, values
        behind = x
        for number, layer in enumerate(self.layers):
            layer, behind = self.execution.hold_back(layer, behind), x
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, number)
            run = functools.partial(
                layer.sequence,
                cos=cos,
                sin=sin,
                segment_ids=segment_ids,
                dropout_key=key,
                execution=self.execution,
            )
            x, k, v = self.execution.checkpointed(run)(x)
            keys.append(k)
            values.append(v)
        return x, keys, values


def use_products(model: Decoder, products: Products) -> None:
    """Says what computes the products with weights, the norms and a decode step's attention. "native" has no
    derivative, and is for one CPU device."""
    for _, module in nnx.iter_graph(model):
        if isinstance(module, Decoder | Linear | RMSNorm):
            module.products = products


def use_weight_gradients(model: Decoder, products: Products) -> None:
    """Says what computes the gradients of weights; "native" is for one CPU device."""
    for _, module in nnx.iter_graph(model):
        if isinstance(module, Linear):
            module.weight_gradient = products
