"""Which kind of cache a sampler has, and what reads it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Literal, get_args

import jax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.pages import PageAttention
from thinkprm_jax.model.pages_tpu import kernel_obstacle

logger = logging.getLogger(__name__)

CacheKind = Literal["rows", "pages"]
RequestedCache = Literal["auto", "rows", "pages"]
VARIABLE = "THINKPRM_JAX_KV_CACHE"


@dataclasses.dataclass(frozen=True)
class CacheChoice:
    """kind: of the cache. attention: what reads its pages. reason: of the choice, for people."""

    kind: CacheKind
    attention: PageAttention
    reason: str


def choose_cache(
    requested: RequestedCache | None, config: ModelConfig, dtype: DTypeLike, parts: Sequence[Mesh | None]
) -> CacheChoice:
    """The cache of a sampler.

    "auto" takes rows. Where no kernel reads pages in place XLA would gather every row from its pages at every
    token, up to the end of the longest; on CPUs our own kernel reads of rows what is live. On TPUs there is such a
    kernel, but it has been interpreted and compiled, and never run: who wants it asks for pages.

    Args:
      requested: None: what $THINKPRM_JAX_KV_CACHE says, or "auto".
      dtype: of keys and values. parts: of the mesh, one for every decode loop.
    Raises:
      UserError: pages were asked for by name and cannot be; a word that is none of these.
    """
    asked = os.environ.get(VARIABLE) or "auto" if requested is None else requested
    said_by = VARIABLE if requested is None else "cache"
    if asked not in get_args(RequestedCache):
        raise UserError(f"{said_by} is {asked!r} (it may be {', '.join(get_args(RequestedCache))})")
    obstacle = kernel_obstacle(config.num_kv_heads, config.head_dim, dtype)
    platform = jax.default_backend()
    if platform != "tpu":
        obstacle = f"on {platform} XLA's attention gathers rows from their pages at every token"
    attention: PageAttention = "kernel" if obstacle is None else "xla"
    if asked == "rows":
        return CacheChoice("rows", attention, "asked for")
    if any(part is not None and part.size > 1 for part in parts):
        split = "a model that is split over devices has a cache of rows"
        if asked == "pages":
            raise UserError(f"{said_by} is pages: {split}")
        return CacheChoice("rows", attention, split)
    if asked == "pages":
        if obstacle is not None:
            logger.info("a cache of pages, read by XLA: %s", obstacle)
        return CacheChoice("pages", attention, "asked for")
    return CacheChoice("rows", attention, obstacle or "the kernel that reads pages has never run on a TPU")
