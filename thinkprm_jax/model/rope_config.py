"""What config.json says of the rotary embedding: theta, and how its frequencies are scaled for long contexts.

The keys are those of transformers 4 (``rope_theta``, ``rope_scaling``) and 5 (``rope_parameters``). A file with
both means what transformers makes of it: ``rope_scaling`` takes the place of ``rope_parameters``, theta too.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.model.fields import MOST, Fields, shown

logger = logging.getLogger(__name__)

_THETA = 10_000.0
_FACTOR = 1e6  # no context is stretched further


@dataclass(frozen=True)
class LinearScaling:
    """Every frequency is divided by ``factor`` (transformers ``rope_type: linear``)."""

    factor: float

    def reach(self, positions: int) -> int:
        """How long a text may be, where the model had so many positions before."""
        return max(positions, min(int(positions * self.factor), MOST))


@dataclass(frozen=True)
class Llama3Scaling:
    """Low frequencies are divided by ``factor``, high ones are kept (``llama3``: Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def reach(self, positions: int) -> int:
        return positions  # such files count the longer context


@dataclass(frozen=True)
class YarnScaling:
    """Frequencies are divided by a part of ``factor`` that grows with the wavelength, and q and k are made larger
    (``yarn``: arXiv 2309.00071). None: as transformers has it."""

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def reach(self, positions: int) -> int:
        """Qwen2.5 says 32,768 positions with or without yarn, Qwen3 its own and a few more."""
        return max(positions, min(int(self.original_max_position_embeddings * self.factor), MOST))

    @property
    def attention_scale(self) -> float:
        """What cos and sin are multiplied with, which is to say q and k."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._magnitude(self.mscale) / self._magnitude(self.mscale_all_dim)
        return self._magnitude(1.0)

    def _magnitude(self, scale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * scale * math.log(self.factor) + 1.0


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling
_NAMES: dict[type, str] = {LinearScaling: "linear", Llama3Scaling: "llama3", YarnScaling: "yarn"}


def read_rope(config: Fields) -> tuple[float, RopeScaling | None]:
    """Theta and scaling of a config.json.

    Raises:
      UserError: a value cannot be, or asks for what is not implemented; names it.
    """
    scaling, parameters = config.inner("rope_scaling"), config.inner("rope_parameters")
    rope = scaling if scaling.content else parameters
    for name, value in rope.content.items():
        if isinstance(value, dict):
            raise config.refuse(f"{rope.inside}{name}: rotations that differ between layers are not supported")
    if rope.number("partial_rotary_factor", 1.0) != 1.0:
        raise config.refuse(f"{rope.inside}partial_rotary_factor is not supported (it must be 1.0)")
    theta = (rope if rope.has("rope_theta") else config).number("rope_theta", _THETA, above=1.0)
    if rope is scaling and parameters.content.get("rope_theta", theta) != theta:
        logger.warning(
            "%s: rope_scaling stands in the place of rope_parameters, as in transformers, so rope_theta is %g and "
            "not %s; write rope_theta into rope_scaling if that is not meant",
            config.source,
            theta,
            shown(parameters.content["rope_theta"]),
        )
    return theta, _read_scaling(config, rope)


def _read_scaling(config: Fields, rope: Fields) -> RopeScaling | None:
    kind = rope.content.get("rope_type") or rope.content.get("type") or "default"
    if kind == "default":
        return None
    if kind not in _NAMES.values():
        known = ", ".join(("default", *_NAMES.values()))
        raise config.refuse(f"rope type {shown(kind)} is not supported (we have: {known})")
    # Some files say beside the object how long the model was at first; that counts, and then the object.
    where = config if config.has("original_max_position_embeddings") else rope
    positions = config.whole("max_position_embeddings", 32_768)
    original = where.whole("original_max_position_embeddings", positions)
    if kind == "yarn" and "factor" in rope.content and not rope.has("factor"):
        factor = positions / original  # null: what the lengths say
    else:
        factor = rope.number("factor", above=0.0, most=_FACTOR)
    if kind == "linear":
        return LinearScaling(factor)
    if kind == "yarn":
        return _read_yarn(rope, factor, original)
    low = rope.number("low_freq_factor", above=0.0, most=_FACTOR)
    return Llama3Scaling(factor, low, rope.number("high_freq_factor", above=low, most=_FACTOR), original)


def _read_yarn(rope: Fields, factor: float, original: int) -> YarnScaling:
    optional = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
    given = {name: rope.number(name, most=_FACTOR) for name in optional if rope.has(name)}
    return YarnScaling(factor, original, truncate=rope.flag("truncate", True), **given)


def rope_to_hf(scaling: RopeScaling) -> dict[str, Any]:
    """The ``rope_scaling`` of a config.json."""
    fields = {name: value for name, value in dataclasses.asdict(scaling).items() if value is not None}
    if fields.get("truncate"):
        del fields["truncate"]  # the default, and older programs do not know the key
    return {"rope_type": _NAMES[type(scaling)], **fields}
