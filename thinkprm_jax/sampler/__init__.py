"""The KV-cached sampler with budget-forcing hooks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from thinkprm_jax.sampler.handle import CancelledError, Handle, RequestHandle, StepLoop, finished, gather
from thinkprm_jax.sampler.request import (
    Choose,
    Completion,
    Force,
    Mark,
    Request,
    Result,
    Rewind,
    SamplerStats,
    Think,
    Thought,
)

if TYPE_CHECKING:
    from thinkprm_jax.sampler.engine import Sampler

__all__ = [
    "CancelledError", "Choose", "Completion", "Force", "Handle", "Mark", "Request", "RequestHandle", "Result",
    "Rewind", "Sampler", "SamplerStats", "StepLoop", "Think", "Thought", "finished", "gather",
]  # fmt: skip

# Name -> module, loaded at first use: who writes a script needs no JAX.
_LATER = {"Sampler": "engine"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
