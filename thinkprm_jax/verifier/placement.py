"""Where models that judge and write run: `--mesh` and what follows from it, before anything is loaded."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from thinkprm_jax.distributed.mesh_option import (
    AUTO,
    OPTION,
    automatic_mesh,
    check_heads,
    local_mesh,
    parse_mesh,
    replicas,
)
from thinkprm_jax.errors import UserError
from thinkprm_jax.verifier.loading import find_files, with_files
from thinkprm_jax.verifier.settings import PlacementSettings, SamplingSettings, VerifierSettings

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.sampler.memory import PlannedModel

Settings = TypeVar("Settings", bound=VerifierSettings)


def place_verifier(
    settings: Settings, mesh: str | None, device_memory: int | None = None
) -> tuple[Settings, Mesh | None]:
    """The devices of a verifier, and its settings on them: the slots of the settings are of one copy of the model,
    those of the result of all copies.

    Args:
      mesh: such as ``data=2,tensor=4``; ``auto``: then a copy has at most as many slots as its memory holds; None:
        one device.
      device_memory: bytes of one device; None: what it says itself.
    Raises:
      UserError: one line that names what cannot be.
    """
    if mesh is None:
        return settings, None
    if not isinstance(settings, PlacementSettings):
        raise UserError(f"{OPTION} {mesh}: a verifier of kind {settings.kind} has no model on this machine")
    from thinkprm_jax.checkpoint.huggingface import read_model_config
    from thinkprm_jax.runtime import default_dtype
    from thinkprm_jax.sampler.memory import PlannedModel

    settings = with_files(settings)
    writes = settings if isinstance(settings, SamplingSettings) else None
    planned = PlannedModel(
        settings.model or settings.kind,
        read_model_config(find_files(settings)),
        settings.dtype or default_dtype(),
        0 if writes is None else writes.max_length,
        drafts=0 if writes is None else writes.drafts,
        quantize=settings.quantize,
    )
    placed, slots = place_model(planned, 1 if writes is None else writes.slots, mesh, device_memory)
    copies = replicas(placed)
    values: dict[str, Any] = {"slots": slots * copies} if writes is not None else {}
    if hasattr(settings, "batch_tokens"):
        values["batch_tokens"] = settings.batch_tokens * copies
    return dataclasses.replace(settings, **values), placed


def place_model(
    planned: PlannedModel, slots: int, mesh: str, device_memory: int | None = None
) -> tuple[Mesh | None, int]:
    """(the devices of a model of which a copy is to have so many slots, how many it has).

    Raises:
      UserError: as of :func:`place_verifier`.
    """
    if mesh == AUTO:

        def slots_on(part: Mesh | None) -> int:
            return _slots_that_fit(dataclasses.replace(planned, mesh=part), slots, device_memory)

        return automatic_mesh(slots_on, slots, [planned.config.num_heads])
    said = f"{OPTION} {mesh}"
    placed = local_mesh(parse_mesh(mesh, rest=True), said)
    check_heads(placed, planned.config, planned.name, said)
    return placed, slots


def _slots_that_fit(planned: PlannedModel, wanted: int, memory: int | None) -> int:
    """Slots of a copy, at most those that are wanted.

    Raises:
      UserError: it does not fit with one.
    """
    from thinkprm_jax.sampler.memory import SPARE, device_bytes

    available = device_bytes() if memory is None else memory
    slots = wanted
    while True:
        needed = planned.weights + planned.cache(slots) + planned.work(slots)
        if available is None or needed + SPARE * available <= available:
            return slots
        if slots == 1:
            raise UserError(
                f"{OPTION} {AUTO}: {planned.name} needs {needed / 1e9:.3g} GB of each device with one slot, and "
                f"there are {available / 1e9:.3g} GB: take a smaller model or dtype, or a shorter max_length"
            )
        slots //= 2
