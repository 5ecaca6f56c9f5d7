"""How generator and verifier share the memory of a device, planned before anything is loaded or compiled."""

from __future__ import annotations

import dataclasses

import jax
from jax.sharding import Mesh

from thinkprm_jax.distributed.mesh_option import replicas
from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler.memory import SPARE, PlannedModel, rows
from thinkprm_jax.sampler.prefix_tree import BLOCK

# Of generator and verifier, tried in this order where the recipe leaves the choice. Beyond them a device gains
# little: its products are as large as it needs them, and a chunk ends when its last slot does. On a CPU a step
# costs nearly in proportion to its slots, busy or not, and a verifier in a search of several rounds has few
# solutions at hand. Of each copy of the models.
_LEVELS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 8, 4, 2, 1)
SLOTS = {
    "cpu": tuple((level, max(level // 2, 1)) for level in _LEVELS if level <= 32),
    "": tuple((level, level) for level in _LEVELS),
}


@dataclasses.dataclass(frozen=True)
class MemoryNeed:
    """What a search could use.

    Attributes:
      slots, prm_slots: as the recipe says; None: as many as fit, at most what can have work.
      solutions, chains: that can run side by side.
      prefix_cache: positions that would hold all prefixes which a next round may begin with.
    """

    slots: int | None
    prm_slots: int | None
    solutions: int
    chains: int
    prefix_cache: int = 0


@dataclasses.dataclass(frozen=True)
class SearchMemoryPlan:
    """text: one line for people. needed, available: bytes of one device; None: nobody knows."""

    slots: int
    prm_slots: int
    prefix_cache: int
    needed: int
    available: int | None
    text: str


def plan(
    generator: PlannedModel | None,
    verifier: PlannedModel | None,
    need: MemoryNeed,
    available: int | None,
    mesh: Mesh | None = None,
) -> SearchMemoryPlan:
    """How many slots each model gets, and how many positions the generator's prefix cache.

    A smaller number of slots is taken where it leaves room for a quarter of the prefix cache that is wanted.

    Raises:
      UserError: it cannot fit, or a number of slots does not suit the mesh.
    """
    step, copies = rows(mesh), replicas(mesh)
    for name, number in (("slots", need.slots), ("prm_slots", need.prm_slots)):
        if number is not None and number % step:
            raise UserError(f"{name} must be a multiple of the mesh's data x fsdp = {step}, not {number}")
    levels = SLOTS.get(jax.devices()[0].platform, SLOTS[""])
    tried: list[SearchMemoryPlan] = []
    for share in (4, 0):  # a quarter of the prefix cache, then whatever is left
        for level in levels:
            most, prm_most = (max(number * copies // step, 1) * step for number in level)
            slots = need.slots or min(most, -(-need.solutions // step) * step)
            prm_slots = need.prm_slots or min(prm_most, -(-need.chains // step) * step)
            found = _plan(generator, verifier, slots, prm_slots, need.prefix_cache, share, available)
            tried.append(found)
            if available is None or found.needed <= available:
                return found
    raise UserError(
        f"the models do not fit: {tried[-1].text}; split them over more devices (mesh.tensor), shorten max_tokens "
        "or max_verification_length, or take fewer slots, a smaller model or dtype"
    )


def _plan(
    generator: PlannedModel | None,
    verifier: PlannedModel | None,
    slots: int,
    prm_slots: int,
    prefix_cache: int,
    share: int,
    available: int | None,
) -> SearchMemoryPlan:
    """share: at least one in ``share`` of the prefix cache's positions is counted; 0: it may be missing."""
    parts, needed, work = [], 0, 0
    for model, number in ((generator, slots), (verifier, prm_slots)):
        if model is None:
            continue
        cache = model.cache(number)
        needed += model.weights + cache
        work += model.work(number)  # they may run side by side
        held = f" + {_gb(cache)} cache ({number} x {model.max_length:,} tokens)" if cache else ""
        weights = "the same weights" if model.shared else _gb(model.weights)
        parts.append(f"{model.name} {weights}{held}")
    work += int(SPARE * available) if available is not None else 0
    needed += work
    if generator is not None and prefix_cache:
        position = generator.prefixes(BLOCK * 64)
        room = prefix_cache if available is None else max(available - needed, 0) // position * BLOCK * 64
        prefix_cache = min(prefix_cache, max(room, prefix_cache // share if share else 0))
        needed += generator.prefixes(prefix_cache)
        parts.append(f"prefixes {_gb(generator.prefixes(prefix_cache))} ({prefix_cache:,} tokens)")
    parts.append(f"work {_gb(work)}")
    bound = "" if available is None else f" of {_gb(available)}"
    text = f"memory of a device: {', '.join(parts)}: {_gb(needed)}{bound} GB"
    return SearchMemoryPlan(
        slots, prm_slots, prefix_cache if generator is not None else 0, needed, available, text
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g}"
