"""How many rows a decode loop has, and how many loops there are, by what the model and the machine are."""

from __future__ import annotations

import os

import jax

from thinkprm_jax.sampler.buckets import coarse_buckets

# Measured on two processors: with 5 MB of weights two workers give 1.5 to 1.9 times the tokens, with 20 MB 1.0 to
# 1.3 times, with 200 MB 0.8 to 0.9 times.
WORKER_WEIGHT_BYTES = 16 * 2**20
# Measured there, with 318 MB: one request takes 9.2 s with 16 rows and 2.3 s with one, four requests take 9.4 s
# with 16 rows and 4.4 s with four. A smaller model would be compiled for longer than it gains.
FOLLOW_WEIGHT_BYTES = 64 * 2**20


def row_counts(weight_bytes: int, slots: int) -> tuple[int, ...]:
    """How many rows a decode loop may have: ``slots``, or for a large model on processors
    also every smaller power of two. There a step of an idle row costs what one of a busy row costs."""
    if not _on_processors() or weight_bytes < FOLLOW_WEIGHT_BYTES:
        return (slots,)
    return coarse_buckets(1, slots, 2)


def _on_processors() -> bool:
    return jax.device_count() == 1 and jax.default_backend() == "cpu"


def worker_count(weight_bytes: int, slots: int) -> int:
    """Workers that keep the processors of this machine busy: one each, of at least four slots.

    1 where the model does not run on them, where there are several devices, and where the weights are larger than
    a processor's cache: then every worker would read them anew, and their products are large enough to be split.
    """
    if not _on_processors() or weight_bytes > WORKER_WEIGHT_BYTES:
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return next(count for count in range(min(processors, max(slots // 4, 1)), 0, -1) if slots % count == 0)
