"""The KV-cached sampler with budget-forcing hooks."""

from thinkprm_jax.sampler.engine import Sampler, SamplerStats
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

__all__ = [
    "Choose", "Completion", "Force", "Mark", "Request", "Result", "Rewind", "Sampler", "SamplerStats", "Think",
    "Thought",
]  # fmt: skip
