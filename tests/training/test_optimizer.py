"""Schedules at known steps, and which parameter is moved by what."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.optimizer import make_optimizer, make_schedule, muon_labels

SHAPES = {
    "embed.embedding": (6, 4),
    "layers.0.attention.query.kernel": (4, 4),
    "layers.0.attention.query.bias": (4,),
    "layers.0.attention_norm.scale": (4,),
    "layers.0.mlp.gate.kernel": (4, 8),
    "layers.1.attention.query.kernel": (4, 4),
    "norm.scale": (4,),
    "head.kernel": (4, 6),
}
MATRICES = {name for name in SHAPES if name.startswith("layers.") and name.endswith("kernel")}


def arrays(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (OptimizerConfig(schedule="constant"), {0: 2.0, 50: 2.0, 99: 2.0}),
        (OptimizerConfig(schedule="constant", warmup_steps=4), {0: 0.5, 1: 1.0, 3: 2.0, 4: 2.0, 99: 2.0}),
        (OptimizerConfig(schedule="constant", warmup_ratio=0.1), {0: 0.2, 8: 1.8, 9: 2.0, 10: 2.0, 99: 2.0}),
        (OptimizerConfig(schedule="linear"), {0: 2.0, 50: 1.0, 75: 0.5, 99: 0.02, 100: 0.0, 200: 0.0}),
        (OptimizerConfig(schedule="linear", warmup_steps=20), {0: 0.1, 9: 1.0, 20: 2.0, 60: 1.0, 100: 0.0}),
        (
            OptimizerConfig(schedule="linear", decay_from=0.8, final_factor=0.1),
            {79: 2.0, 80: 2.0, 90: 1.1, 100: 0.2},
        ),
        (OptimizerConfig(schedule="cosine"), {0: 2.0, 25: 1 + np.sqrt(0.5), 50: 1.0, 100: 0.0}),
        (OptimizerConfig(schedule="cosine", final_factor=0.5), {0: 2.0, 50: 1.5, 100: 1.0}),
    ],
)
def test_schedule(config: OptimizerConfig, expected: dict[int, float]) -> None:
    schedule = make_schedule(config, 2.0, 100)
    for step, value in expected.items():
        assert float(schedule(jnp.asarray(step))) == pytest.approx(value, abs=1e-5), step


def test_adamw_decays_matrices_only() -> None:
    config = OptimizerConfig(learning_rate=0.5, weight_decay=0.1)
    optimizer, params = make_optimizer(config, 10), arrays(0)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    for name, update in updates.items():
        np.testing.assert_allclose(update, -0.05 * params[name] if params[name].ndim == 2 else 0, atol=1e-7)


def test_clipping_is_by_the_norm_of_all_gradients() -> None:
    config = OptimizerConfig(learning_rate=1.0, b1=0.0, b2=0.0, eps=1.0, clip_norm=0.5)
    optimizer, params, gradients = make_optimizer(config, 10), arrays(0), arrays(1)
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in gradients.values()))
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    for name, gradient in gradients.items():
        clipped = gradient * 0.5 / norm
        np.testing.assert_allclose(updates[name], -clipped / (jnp.abs(clipped) + 1), rtol=1e-4, atol=1e-7)


def test_muon_moves_the_matrices_of_layers_and_adam_the_rest() -> None:
    params, gradients = arrays(0), arrays(1)
    assert {name for name, label in muon_labels(params).items() if label == "muon"} == MATRICES
    config = OptimizerConfig(name="muon", learning_rate=0.1, adam_learning_rate=0.01, weight_decay=0.1)
    optimizer = make_optimizer(config, 10)
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    assert jax.tree.structure(state) == jax.tree.structure(optimizer.init(params))
    for name, update in updates.items():
        if name not in MATRICES:  # Adam's first step: the sign of the gradient
            decay = (
                0.1 * params[name] if params[name].ndim == 2 else 0
            )  # embeddings and head, as AdamW decays them
            np.testing.assert_allclose(update, -0.01 * (jnp.sign(gradients[name]) + decay), rtol=1e-3, atol=1e-6)
            continue
        inputs, outputs = update.shape
        turned = (update + 0.1 * 0.1 * params[name]) / -0.1 / max(1, outputs / inputs) ** 0.5
        u, _, v = np.linalg.svd(gradients[name], full_matrices=False)
        values = np.linalg.svd(turned, compute_uv=False)
        assert 0.6 < values.min() <= values.max() < 1.3, name  # five Newton-Schulz steps go about so near to 1
        assert np.sum((u @ v) * turned) / np.linalg.norm(u @ v) / np.linalg.norm(turned) > 0.97, name


def test_stacking_matrices_of_one_shape_keeps_them_apart() -> None:
    config = OptimizerConfig(name="muon", learning_rate=0.1, adam_learning_rate=0.01, clip_norm=None)
    optimizer, params, gradients = make_optimizer(config, 10), arrays(0), arrays(1)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    for name in MATRICES:
        single = {name: gradients[name]}
        alone, _ = optimizer.update(single, optimizer.init(single), single)
        np.testing.assert_allclose(updates[name], alone[name], atol=1e-5)
