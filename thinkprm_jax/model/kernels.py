"""Which kernel computes attention over whole sequences, and on which devices its parts run.

``xla``: :func:`thinkprm_jax.model.attention.attend_sequence`, everywhere. ``cudnn``: fused attention on NVIDIA
GPUs. ``splash``: the block-sparse Pallas kernel that ships with JAX, on TPUs. Each of them keeps the segments of
packed rows apart; a kernel that cannot is not in this list.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from thinkprm_jax.distributed.mesh import LOGICAL_AXES
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.attention import attend_sequence
from thinkprm_jax.model.config import ModelConfig

Kernel = Literal["xla", "cudnn", "splash"]
Fused = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]
Module = TypeVar("Module", bound=nnx.Module)
Remat = Literal["none", "products", "layer"]
SPLASH_BLOCK = 512
_SPLASH_LANES = 128


@dataclass(frozen=True)
class Execution:
    """How a decoder computes whole sequences. Changes no number but by rounding; hashable, a jit-static part.

    mesh: None: one device, or shardings left to the partitioner. remat: what the backward pass finds in memory:
    ``none`` everything, ``products`` the products with weights, ``layer`` the input of each layer. interpret: the
    splash kernel is interpreted (tests without a TPU). scan: the model has one layer, whose parameters are those
    of all layers, stacked [L, ...], and a loop goes over them: it is compiled once, not L times.
    """

    attention: Kernel = "xla"
    remat: Remat = "none"
    mesh: Mesh | None = None
    interpret: bool = False
    scan: bool = False

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """Says how ``x`` is split, one logical axis (of ``mesh.LOGICAL_AXES``) or None a dimension.

        Without it the partitioner may split activations as their weights are and move them around each product.
        """
        if self.mesh is None or self.mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, self._spec(axes, x.shape)))

    def look_up(self, table: Callable[[jax.Array], jax.Array], width: int, tokens: jax.Array) -> jax.Array:
        """``table`` of tokens [B, T] -> [B, T, D], split by rows.

        The table's width D is split over fsdp, as the rows are. Every device looks its columns up for the rows of
        its whole fsdp group and then they exchange; left alone, the partitioner copies the output everywhere.
        """
        if self.mesh is None or self.mesh.size == 1:
            return table(tokens)
        columns = self._spec((None, None, "embed"), (*tokens.shape, width))[-1]
        rows = "data" if tokens.shape[0] % self.mesh.shape["data"] == 0 else None
        tokens = jax.lax.with_sharding_constraint(tokens, NamedSharding(self.mesh, PartitionSpec(rows, None)))
        x = jax.lax.with_sharding_constraint(
            table(tokens), NamedSharding(self.mesh, PartitionSpec(rows, None, columns))
        )
        return self.constrain(x, "batch", None, None)

    def _spec(self, axes: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
        assert self.mesh is not None
        entries: list[Any] = []
        for axis, size in zip(axes, shape, strict=True):
            names = tuple(name for name in LOGICAL_AXES[axis] if self.mesh.shape[name] > 1) if axis else ()
            split = 1
            for name in names:
                split *= self.mesh.shape[name]
            entries.append(names if names and size % split == 0 else None)
        return PartitionSpec(*entries)

    def hold_back(self, layer: Module, behind: jax.Array) -> Module:
        """``layer`` with weights that are not there before ``behind`` is.

        Weights that fsdp splits are gathered where they are used, and nothing else keeps the compiler from
        gathering those of all layers at the start and holding them. ``behind`` is the input of the layer before,
        so that one layer is gathered while another computes. Not on TPUs: their compiler orders gathers by what
        memory there is, and by its own account holds more with this in its way.
        """
        if self.mesh is None or self.mesh.shape["fsdp"] == 1 or self.mesh.devices.flat[0].platform == "tpu":
            return layer
        graph, weights = nnx.split(layer)
        weights, _ = jax.lax.optimization_barrier((weights, behind))
        return nnx.merge(graph, weights)

    def checkpointed(self, function: Any) -> Any:
        """``function`` with this rematerialisation."""
        if self.remat == "none":
            return function
        policies = jax.checkpoint_policies
        keep = policies.nothing_saveable if self.remat == "layer" else policies.dots_with_no_batch_dims_saveable
        # What is computed again stands in another loop than the first time: nothing could merge the two.
        return jax.checkpoint(function, policy=keep, prevent_cse=not self.scan)

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None, dtype: DTypeLike
    ) -> jax.Array:
        """Causal attention: q [B, T, H, h] rotated and scaled, k, v [B, T, K, h] -> float32 [B, T, H, h].

        segment_ids: int [B, T] or None; tokens attend only within equal ids.
        """
        q = self.constrain(q, "batch", None, "heads", None)
        k = self.constrain(k, "batch", None, "kv_heads", None)
        v = self.constrain(v, "batch", None, "kv_heads", None)
        if self.attention == "xla":
            return attend_sequence(q, k, v, segment_ids, dtype)
        q, k, v = (x.astype(dtype) for x in (q, k, v))
        fused = _cudnn if self.attention == "cudnn" else functools.partial(_splash, interpret=self.interpret)
        return self._on_each_device(fused, q, k, v, segment_ids)

    def _on_each_device(
        self, fused: Fused, q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None
    ) -> jax.Array:
        """Each device runs the kernel on its own rows and heads: XLA does not partition Pallas calls, and cuDNN's
        only where q and k are split alike, which they are not where KV heads are copied."""
        if self.mesh is None or self.mesh.size == 1:
            return fused(q, k, v, segment_ids)
        split = self._spec(("batch", None, "heads", None), q.shape)
        if split[2] and k.shape[2] % self.mesh.shape["tensor"]:  # every device needs its query heads' KV heads
            k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
        run = jax.shard_map(
            fused,
            mesh=self.mesh,
            in_specs=(split, split, split, self._spec(("batch", None), q.shape[:2])),
            out_specs=split,
            check_vma=False,  # the kernels' calls carry no information about varying axes
        )
        return run(q, k, v, segment_ids)


def choose_attention(
    requested: Literal["auto", "xla", "cudnn", "splash"],
    config: ModelConfig,
    dtype: DTypeLike,
    length: int,
    platform: str,
) -> tuple[Kernel, str]:
    """The kernel, and in words why. ``length``: T of every row.

    Raises:
      UserError: a kernel was asked for by name and cannot run.
    """
    obstacles = {
        "xla": None,
        "cudnn": _cudnn_obstacle(config, dtype, length, platform),
        "splash": _splash_obstacle(config, length, platform),
    }
    if requested != "auto":
        if obstacles[requested]:
            raise UserError(f"attention {requested} cannot run: {obstacles[requested]}")
        return requested, "asked for"
    fast: dict[str, Kernel] = {"gpu": "cudnn", "cuda": "cudnn", "tpu": "splash"}
    kernel = fast.get(platform)
    if kernel is None:
        return "xla", f"there is no fused kernel for {platform}"
    if obstacles[kernel]:
        return "xla", f"{kernel} cannot run: {obstacles[kernel]}"
    return kernel, f"the fused kernel of {platform}"


def _cudnn_obstacle(config: ModelConfig, dtype: DTypeLike, length: int, platform: str) -> str | None:
    if platform not in ("gpu", "cuda"):
        return f"it needs an NVIDIA GPU, this is {platform}"
    if jnp.dtype(dtype) != jnp.bfloat16:
        return f"it needs bfloat16 products, not {jnp.dtype(dtype).name}"
    if config.head_dim % 8 or config.head_dim > 128:
        return f"it needs heads of a multiple of 8 up to 128, not {config.head_dim}"
    if length % 2:  # with segments, and backward
        return f"it needs rows of an even number of tokens, not {length}"
    return None


def _splash_obstacle(config: ModelConfig, length: int, platform: str) -> str | None:
    if platform != "tpu":
        return f"it needs a TPU, this is {platform}"
    if config.head_dim % _SPLASH_LANES:
        return f"it needs heads of a multiple of {_SPLASH_LANES}, not {config.head_dim}"
    if length % _SPLASH_LANES:
        return f"it needs rows of a multiple of {_SPLASH_LANES} tokens, not {length}"
    return None


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array | None) -> jax.Array:
    """q [B, T, H, h], k, v [B, T, K, h], ids [B, T] or None -> float32 [B, T, H, h]."""
    mask = None if ids is None else (ids[:, None, :, None] == ids[:, None, None, :])
    output = jax.nn.dot_product_attention(q, k, v, mask=mask, scale=1.0, is_causal=True, implementation="cudnn")
    return output.astype(jnp.float32)


def _splash(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array | None, interpret: bool) -> jax.Array:
    """q [B, T, H, h], k, v [B, T, K, h], ids [B, T] or None -> float32 [B, T, H, h]."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as splash,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    length, heads = q.shape[1], q.shape[2]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    ids = jnp.zeros((q.shape[0], length), jnp.int32) if ids is None else ids
    size = next(size for size in (SPLASH_BLOCK, 256, _SPLASH_LANES) if length % size == 0)
    blocks = splash.BlockSizes(
        block_q=size, block_kv=size, block_kv_compute=size, block_q_dkv=size, block_kv_dkv=size,
        block_kv_dkv_compute=size, block_q_dq=size, block_kv_dq=size,
    )  # fmt: skip
    mask = masks.MultiHeadMask([masks.CausalMask((length, length)) for _ in range(heads)])
    kernel = splash.make_splash_mha(
        mask=mask, head_shards=1, q_seq_shards=1, block_sizes=blocks, interpret=interpret
    )
    output = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, segment_ids=splash.SegmentIds(q=ids, kv=ids)))(
        q, k, v, ids
    )
    return output.transpose(0, 2, 1, 3).astype(jnp.float32)
