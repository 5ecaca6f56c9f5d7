"""A verifier in the memory that a policy leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from thinkprm_jax.errors import UserError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.verifier.settings import Quantize

_LEVELS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 8, 4, 2, 1)


def plan_slots(
    model: str | Path,
    memory: int,
    *,
    mesh: Mesh | None = None,
    max_length: int = 4096,
    dtype: str | None = None,
    quantize: Quantize | None = None,
    copies: int = 1,
) -> int:
    """How many slots a verifier may have in so much memory beside a policy: its weights, the cache of the slots at
    its longest, and the work of the largest prefill. Nothing is loaded.

    Example:

        prm = ThinkPRM("mini", slots=plan_slots("mini", 2**30, max_length=1024), max_length=1024)

    Args:
      model: of the verifier, a folder or an id. memory: bytes of one device.
      mesh: where it runs, of any axes (:func:`share_mesh`). max_length, dtype, quantize: as of the
        verifier.
      copies: of the weights: 2 where they are replaced while it judges (``update_weights``).
    Raises:
      UserError: it does not fit with one slot a device; says what it takes.
    """
    from thinkprm_jax.checkpoint.huggingface import read_model_config
    from thinkprm_jax.checkpoint.weights import find_model
    from thinkprm_jax.distributed.sharing import our_mesh
    from thinkprm_jax.runtime import default_dtype
    from thinkprm_jax.sampler.memory import SPARE, PlannedModel, rows

    mesh, config = our_mesh(mesh), read_model_config(find_model(model))
    planned = PlannedModel(str(model), config, dtype or default_dtype(), max_length, mesh, quantize=quantize)
    step, needed = rows(mesh), 0
    for level in _LEVELS:
        slots = max(level // step, 1) * step
        parts = (copies * planned.weights, planned.cache(slots), planned.work(slots))
        needed = sum(parts) + int(SPARE * memory)
        if needed <= memory:
            return slots
    weights, cache, work = (f"{part / 1e9:.3g}" for part in parts)
    raise UserError(
        f"{model} does not fit into {memory / 1e9:.3g} GB of a device: weights {weights}, cache {cache} (one slot "
        f"of {max_length:,} tokens), work {work} GB; split it over more devices or shorten max_length"
    )
