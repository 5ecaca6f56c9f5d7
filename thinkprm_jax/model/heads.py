"""The heads of reward models, which score a token where a language model has a vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from thinkprm_jax.model.linear import Build


class ScoreHead(nnx.Module):
    """The head of a reward model: Linear, ReLU, Linear. It scores a token; the decoder has no vocabulary then."""

    def __init__(self, build: Build, labels: int) -> None:
        d = build.config.hidden_size
        self.inner = build.linear(d, d, True)
        self.outer = build.linear(d, labels, True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] after the final norm -> float32 logits [..., labels]."""
        return self.outer(jax.nn.relu(self.inner(x)))

    def log_odds(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(features [..., D], weights float32 [D], offset float32): features . weights + offset is log P(class 1)
        less log P(class 0). In bfloat16 two logits are often equal: the difference is of float32 weights."""
        assert self.outer.bias is not None
        negative, positive = self.outer.kernel[...].astype(jnp.float32).T
        without, bias = self.outer.bias[...].astype(jnp.float32)
        return jax.nn.relu(self.inner(x)), positive - negative, bias - without


class ValueHead(nnx.Module):
    """The head of a reward model: one Linear, whose value is the log odds of a token."""

    def __init__(self, build: Build) -> None:
        self.summary = build.linear(build.config.hidden_size, 1, True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] after the final norm -> float32 value [..., 1]."""
        return self.summary(x)

    def log_odds(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """As of :class:`ScoreHead`."""
        assert self.summary.bias is not None
        weights, bias = self.summary.kernel[...].astype(jnp.float32), self.summary.bias[...].astype(jnp.float32)
        return x, weights[:, 0], bias[0]
