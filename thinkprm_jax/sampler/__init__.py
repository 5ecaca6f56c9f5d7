"""The KV-cached sampler with budget-forcing hooks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from thinkprm_jax.sampler.request import (
    Choose,
    Completion,
    Force,
    Mark,
    Request,
    Result,
    Rewind,
    Think,
    Thought,
)

if TYPE_CHECKING:
    from thinkprm_jax.sampler.engine import Sampler, cpu_lanes
    from thinkprm_jax.sampler.stats import SamplerStats

__all__ = [
    "Choose", "Completion", "Force", "Mark", "Request", "Result", "Rewind", "Sampler", "SamplerStats", "Think",
    "Thought", "cpu_lanes",
]  # fmt: skip

# Name -> module, loaded at first use: who writes a script needs no JAX.
_LATER = {"Sampler": "engine", "cpu_lanes": "engine", "SamplerStats": "stats"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
