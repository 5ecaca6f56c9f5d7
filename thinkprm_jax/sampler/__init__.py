"""The KV-cached sampler with budget-forcing hooks."""

from thinkprm_jax.sampler.engine import Sampler, cpu_lanes
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
from thinkprm_jax.sampler.stats import SamplerStats

__all__ = [
    "Choose", "Completion", "Force", "Mark", "Request", "Result", "Rewind", "Sampler", "SamplerStats", "Think",
    "Thought", "cpu_lanes",
]  # fmt: skip
