"""Token cross-entropy on target tokens, as sums, so that any split of a step's rows gives the same step.

The head and the loss are one function: float32 logits of a long batch over 152,000 words would be larger than the
model, so they exist for a chunk of positions at a time, and their gradient is taken in the same pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from thinkprm_jax.model.matmul import einsum


class Sums(NamedTuple):
    """Sums over the target tokens of some rows; every field is a float32 scalar.

    loss: of weight * cross-entropy. weight: of the weights. tokens: target tokens. hits: those that are the
    argmax. examples: those that have targets. exact: those whose every target is the argmax.
    """

    loss: jax.Array
    weight: jax.Array
    tokens: jax.Array
    hits: jax.Array
    examples: jax.Array
    exact: jax.Array


@dataclass(frozen=True)
class Objective:
    """What the loss is taken over.

    choices: None: the vocabulary; else the logits of these token ids only, and every target is one of them (a
    discriminative verifier's `+` and `-`). chunk: tokens of a device whose logits exist at once; None: as many as
    make 512 MB of float32 logits, so that a small vocabulary is not cut at all.
    """

    choices: tuple[int, ...] | None = None
    chunk: int | None = None

    def chunk_of(self, vocabulary: int) -> int:
        return self.chunk if self.chunk is not None else max(_CHUNK_BYTES // (4 * vocabulary), 1)


_CHUNK_BYTES = 2**29


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-log p(target): float32 logits [..., V], int targets [...] -> [...]."""
    return _cross_entropy_parts(logits, targets)[0]


def _cross_entropy_parts(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """-log p(target) [...], the logsumexp [..., 1], and whether a logit is the target's [..., V].

    The target's logit is selected by comparison and reduction, not by a gather: it fuses with its neighbours
    and partitions over a sharded vocabulary.
    """
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    is_target = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1) == targets[..., None]
    total = top + jnp.log(jnp.sum(jnp.exp(logits - top), axis=-1, keepdims=True))
    picked = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    return total[..., 0] - picked, total, is_target


@dataclass(frozen=True)
class Head:
    """The static part of the head: ``tied``: its kernel is the embedding table [V, D], else [D, V]. dtype: of the
    products' inputs. trains: whether the kernel's gradient is wanted. mesh: over whose data and fsdp axes the rows
    are split, and over whose tensor axis the vocabulary."""

    tied: bool
    dtype: DTypeLike
    chunk: int
    trains: bool = True
    mesh: Mesh | None = None

    @property
    def groups(self) -> int:
        return 1 if self.mesh is None else self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def split(self, x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
        if self.mesh is None or self.mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*axes)))


def token_sums(
    head: Head,
    x: jax.Array,
    kernel: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    segment_ids: jax.Array | None = None,
) -> Sums:
    """The sums of a batch over the whole vocabulary; only ``loss`` has a gradient, in ``x`` and ``kernel``.

    Args:
      x: float32 [B, T, D] after the final norm. targets: int [B, T]. weights: float32 [B, T], 0 off target.
      segment_ids: int [B, T], the examples of packed rows; None: one in a row.
    """
    loss, hits = _loss_and_hits(head, x, kernel, targets, weights)
    return _sums(loss, hits, weights, segment_ids)


def choice_sums(
    choices: tuple[int, ...],
    x: jax.Array,
    kernels: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    segment_ids: jax.Array | None = None,
) -> Sums:
    """The same over the logits of ``choices`` only. kernels: float32 [C, D], their rows of the head."""
    logits = jnp.einsum("btd,cd->btc", x, kernels.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    places = jnp.argmax(targets[..., None] == jnp.asarray(choices, targets.dtype), axis=-1)
    losses = cross_entropy(logits, places)
    return _sums(jnp.sum(losses * weights), jnp.argmax(logits, axis=-1) == places, weights, segment_ids)


def _sums(loss: jax.Array, hits: jax.Array, weights: jax.Array, segment_ids: jax.Array | None) -> Sums:
    counted = weights > 0
    targets, misses = _of_examples(counted, segment_ids), _of_examples(counted & ~hits, segment_ids)
    return Sums(
        loss=loss,
        weight=jnp.sum(weights),
        tokens=jnp.sum(counted, dtype=jnp.float32),
        hits=jnp.sum(hits & counted, dtype=jnp.float32),
        examples=jnp.sum(targets > 0, dtype=jnp.float32),
        exact=jnp.sum((targets > 0) & (misses == 0), dtype=jnp.float32),
    )


def _of_examples(flags: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """How many flags, bool [B, T], each example has: at its last place, and 0 elsewhere; int [B, T]."""
    so_far = jnp.cumsum(flags, axis=1, dtype=jnp.int32)
    if segment_ids is None:
        segment_ids = jnp.zeros_like(so_far)
    is_last = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    at_ends = jax.lax.cummax(jnp.where(is_last, so_far, 0), axis=1)
    before = jnp.pad(at_ends[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(is_last, so_far - before, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss_and_hits(
    head: Head, x: jax.Array, kernel: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scalar loss, bool hits [B, T]."""
    loss, hits, _, _ = _scan(head, x, kernel, targets, weights, gradients=False)
    return loss, hits


def _forward(head, x, kernel, targets, weights):
    loss, hits, grad_x, grad_kernel = _scan(head, x, kernel, targets, weights, gradients=True)
    empty = jnp.zeros((0,), kernel.dtype)  # carries the dtype
    return (loss, hits), (grad_x, grad_kernel, empty)


def _backward(head, saved, cotangents):
    """The loss is a sum, so its gradients, taken on the way forward, only want the scalar cotangent."""
    grad_x, grad_kernel, empty = saved
    scale = cotangents[0]
    grad_kernel = None if grad_kernel is None else (grad_kernel * scale).astype(empty.dtype)
    return grad_x * scale, grad_kernel, None, None


_loss_and_hits.defvjp(_forward, _backward)

_BATCH = ("data", "fsdp")


def _scan(
    head: Head, x: jax.Array, kernel: jax.Array, targets: jax.Array, weights: jax.Array, gradients: bool
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    """Loss, hits [B, T] and, if asked for, their gradients: x's [B, T, D], the kernel's in float32.

    Letters: g groups of rows (one for each part of the batch's split over devices), b rows of a group, c positions
    of a chunk. The kernel's gradient is summed within each group while the chunks go by and over groups once.
    """
    batch, length = x.shape[:2]
    groups = head.groups if batch % head.groups == 0 else 1
    rows = batch // groups
    chunks = min(-(-rows * length // head.chunk), length)
    size = -(-length // chunks)
    letters = "vd" if head.tied else "dv"
    kernel_split: tuple[str | None, str | None] = ("tensor", None) if head.tied else (None, "tensor")
    if head.mesh is not None and kernel.shape[letters.index("v")] % head.mesh.shape["tensor"]:
        kernel_split = (None, None)
    matmul = functools.partial(einsum, dtype=head.dtype)
    # Gathered over fsdp once, in the dtype of the products, and not again for each chunk.
    weight = head.split(kernel.astype(head.dtype), *kernel_split)

    def cut(value: jax.Array) -> jax.Array:
        """[B, T, ...] -> [chunks, g, b, c, ...]"""
        padding = [(0, 0), (0, chunks * size - length)] + [(0, 0)] * (value.ndim - 2)
        value = jnp.pad(value, padding).reshape(groups, rows, chunks, size, *value.shape[2:])
        value = jnp.moveaxis(value, 2, 0)
        return head.split(value, None, _BATCH, *[None] * (value.ndim - 2)) if groups > 1 else value

    def part(carry, chunk):
        loss, grad_kernel = carry
        x, targets, weights = chunk
        logits = matmul(f"gbcd,{letters}->gbcv", x, weight)
        losses, total, is_target = _cross_entropy_parts(logits, targets)
        loss = loss + jnp.sum(losses * weights)
        hits = jnp.argmax(logits, axis=-1) == targets
        if not gradients:
            return (loss, None), (hits, None)
        slopes = (jnp.exp(logits - total) - is_target) * weights[..., None]
        grad_x = matmul(f"gbcv,{letters}->gbcd", slopes, weight)
        if head.trains:
            grad_kernel = grad_kernel + matmul(f"gbcv,gbcd->g{letters}", slopes, x)
        return (loss, grad_kernel), (hits, grad_x)

    start = None
    if gradients and head.trains:
        start = jnp.zeros((groups, *kernel.shape), jnp.float32)
        start = head.split(start, _BATCH, *kernel_split) if groups > 1 else start
    carry = (jnp.zeros((), jnp.float32), start)
    pieces = (cut(x), cut(targets), cut(weights))
    if chunks == 1:
        carry, outputs = part(carry, jax.tree.map(lambda piece: piece[0], pieces))
        outputs = jax.tree.map(lambda output: output[None], outputs)
    else:
        carry, outputs = jax.lax.scan(part, carry, pieces)
    (loss, grad_kernel), (hits, grad_x) = carry, outputs

    def join(value: jax.Array) -> jax.Array:
        value = jnp.moveaxis(value, 0, 2)
        return value.reshape(batch, chunks * size, *value.shape[4:])[:, :length]

    grad_x = None if grad_x is None else join(grad_x)
    return loss, join(hits), grad_x, None if grad_kernel is None else jnp.sum(grad_kernel, axis=0)
