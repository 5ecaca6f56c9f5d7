"""Optimizers and schedules from optax, by recipe. Parameters are a flat dict: dotted path -> array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.stacks import is_stacked

Params = Mapping[str, jax.Array]


def make_schedule(config: OptimizerConfig, peak: float, steps: int) -> optax.Schedule:
    """Step (from 0) -> learning rate: a linear warm-up, a constant part, then the fall to ``final_factor``."""
    warmup = config.warmup_steps or round(config.warmup_ratio * steps)
    decay_start = max(round(config.decay_from * steps), warmup)
    decay_steps = max(steps - decay_start, 1)

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        rising = jnp.minimum((step + 1) / max(warmup, 1), 1.0)  # without warm-up 1 from the first step
        done = jnp.clip((step - decay_start) / decay_steps, 0.0, 1.0)
        if config.schedule == "constant":
            return peak * rising
        left = 1 - done if config.schedule == "linear" else 0.5 * (1 + jnp.cos(jnp.pi * done))
        return peak * rising * (config.final_factor + (1 - config.final_factor) * left)

    return schedule


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The whole chain: clipping, the optimizer, decay of matrices, learning rates."""
    parts = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    rate = make_schedule(config, config.learning_rate, steps)
    if config.name == "adamw":
        parts.append(
            optax.adamw(
                rate, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay, mask=_is_matrix
            )
        )
        return optax.chain(*parts)
    adam_rate = make_schedule(config, config.adam_learning_rate or config.learning_rate, steps)
    muon = optax.chain(
        stacked(
            optax.contrib.scale_by_muon(
                beta=config.momentum,
                weight_dimension_numbers=lambda stacks: {
                    name: optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2) for name in stacks
                },
            )
        ),
        _scale_by_shape(),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(rate),
    )
    # Without decay the state is the one that runs of earlier versions have saved.
    decay = [optax.add_decayed_weights(config.weight_decay, _is_matrix)] if config.weight_decay else []
    adam = optax.chain(
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        *decay,
        optax.scale_by_learning_rate(adam_rate),
    )
    parts.append(optax.partition({"muon": muon, "adam": adam}, muon_labels))
    return optax.chain(*parts)


def muon_labels(params: Params) -> dict[str, str]:
    """Muon for the matrices inside the layers; Adam for embeddings, head, norms and biases.

    Raises:
      ValueError: the layers are stacked; Muon stacks matrices by shape, and its saved state goes by these stacks.
    """
    if any(map(is_stacked, params)):
        raise ValueError("muon moves layers one by one, and these are stacked")
    return {name: "muon" if name.startswith("layers.") and p.ndim == 2 else "adam" for name, p in params.items()}


def stacked(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Runs ``inner`` on matrices of equal shape stacked into one [n, in, out] array: one set of products for all
    layers instead of one per matrix, which is what small models pay for in compile time and dispatch."""

    def stack(tree: Mapping[str, Any]) -> dict[str, jax.Array]:
        groups = _groups(tree)
        return {key: jnp.stack([tree[name] for name in names]) for key, names in groups.items()}

    def init(params: Any) -> Any:
        return inner.init(stack(_present(params)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        present = _present(updates)
        stacks, state = inner.update(stack(present), state)
        moved = {name: stacks[key][i] for key, names in _groups(present).items() for i, name in enumerate(names)}
        return {name: moved.get(name, value) for name, value in updates.items()}, state

    return optax.GradientTransformation(init, update)


def _groups(tree: Mapping[str, jax.Array]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(tree):
        groups.setdefault("x".join(map(str, tree[name].shape)), []).append(name)
    return groups


def _present(tree: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Without the places that optax.partition masks out."""
    return {name: value for name, value in tree.items() if not isinstance(value, optax.MaskedNode)}


def _scale_by_shape() -> optax.GradientTransformation:
    """Muon's width rule: an orthogonal update of an [in, out] matrix times sqrt(max(1, out / in))."""
    return optax.stateless_with_tree_map(lambda u, _: u * max(1.0, u.shape[1] / u.shape[0]) ** 0.5)


def _is_matrix(params: Params) -> dict[str, bool]:
    """Of arrays by name; also of those that optax.partition masks out."""
    return {name: getattr(value, "ndim", 0) - is_stacked(name) == 2 for name, value in params.items()}
