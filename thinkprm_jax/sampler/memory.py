"""The memory of a device that a model and its sampler take, from shapes alone, before anything is loaded."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.memory import cache_bytes, weight_bytes
from thinkprm_jax.model.quantization import Quantization
from thinkprm_jax.sampler.cache_store import PREFILL_TOKENS
from thinkprm_jax.sampler.draft_costs import longest_drafts

SPARE = 0.05  # of the memory, for programs and what the allocator cannot use


@dataclasses.dataclass(frozen=True)
class PlannedModel:
    """A decoder in the plan; all bytes are of one device.

    Attributes:
      name: in messages. max_length: tokens of a row of its cache; 0: it keeps no cache.
      shared: its weights are those of another one in the plan.
      drafts: tokens that a step of it tries at once; None: as many as ever pay.
      quantize: how its weights are held, where not in ``dtype``.
    """

    name: str
    config: ModelConfig
    dtype: str
    max_length: int
    mesh: Mesh | None = None
    shared: bool = False
    drafts: int | None = 0
    quantize: Quantization | None = None

    @functools.cached_property
    def weights(self) -> int:
        return 0 if self.shared else weight_bytes(self.config, self.dtype, self.mesh, self.quantize)

    def cache(self, slots: int) -> int:
        """Of the key-value cache once its longest row is full."""
        if not self.max_length:
            return 0
        drafts = longest_drafts(self.drafts, weight_bytes(self.config, self.dtype, quantization=self.quantize))
        return cache_bytes(self.config, slots, self.max_length, self.dtype, self.mesh, drafts)

    def prefixes(self, positions: int) -> int:
        numbers = 2 * self.config.num_layers * self.config.num_kv_heads * self.config.head_dim * positions
        return numbers * jnp.dtype(self.dtype).itemsize // self._split

    def work(self, slots: int) -> int:
        """Activations of the largest prefill, by the widths of a layer; the keys and values that it makes and
        those that it goes on from; the float32 logits of a decode step with what sampling makes of them."""
        config, split = self.config, 1 if self.mesh is None else self.mesh.shape["tensor"]
        attention = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        width = 4 * config.hidden_size + (2 * attention + 3 * config.intermediate_size) // split
        activations = PREFILL_TOKENS * width * jnp.dtype(self.dtype).itemsize
        made = 2 * self.prefixes(PREFILL_TOKENS) * rows(self.mesh) if self.max_length else 0
        return activations + made + 4 * 4 * slots * config.vocab_size // split

    @property
    def _split(self) -> int:
        """Parts of the prefix cache: blocks over data and fsdp, heads over tensor where they can be."""
        if self.mesh is None:
            return 1
        tensor = self.mesh.shape["tensor"]
        return rows(self.mesh) * (tensor if self.config.num_kv_heads % tensor == 0 else 1)


def rows(mesh: Mesh | None) -> int:
    """By what the slots are split."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def device_bytes(read: Callable[[], dict[str, int] | None] | None = None) -> int | None:
    """Bytes that programs may use on one device: what it says itself; of a CPU, what the machine has free. None
    where nobody says."""
    stats = (read or jax.devices()[0].memory_stats)()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if jax.devices()[0].platform != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(line.split()[1] for line in file if line.startswith("MemAvailable:"))
        return int(free) * 1024 // jax.local_device_count()
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    except (AttributeError, OSError, ValueError):  # Windows
        return None
