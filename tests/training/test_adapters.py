"""LoRA in the trainer: only the adapters move, dropout is part of the seed, merging changes no logit."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from support import tiny_training
from support.merged_lora import merged
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.lora import LoraSpec, lora_shapes
from thinkprm_jax.training.trainer import Trainer, TrainState, parameters_of

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
    qkv_bias=True, initializer_range=0.3,
)  # fmt: skip
SPEC = LoraSpec(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "o_proj", "down_proj"))
BATCH = tiny_training.random_batch([17, 9, 12], [3, 2, 4], 16, CONFIG.vocab_size)


def base() -> dict[str, jax.Array]:
    from flax import nnx

    return parameters_of(Decoder(CONFIG, rngs=nnx.Rngs(1)))


def trainer(spec: LoraSpec = SPEC, **options: object) -> Trainer:
    mesh = make_mesh(devices=jax.devices()[:1])
    return Trainer(CONFIG, optax.adam(1e-2), mesh, "float32", lora=spec, frozen_dtype="float32", **options)


def trained(train: Trainer, steps: int = 3) -> TrainState:
    state = train.start_from(base(), seed=5)
    for _ in range(steps):
        state, _ = train.train_step(state, train.place(BATCH))
    return state


@pytest.mark.slow
def test_only_adapters_train_and_only_they_are_saved() -> None:
    train = trainer()
    state = trained(train)
    assert {name: value.shape for name, value in state.params.items()} == lora_shapes(CONFIG, SPEC)
    assert all(np.abs(value).max() > 0 for name, value in state.params.items() if name.endswith("lora_b"))
    for name, value in base().items():
        np.testing.assert_array_equal(state.frozen[name], value)
    saved, abstract = state.saved(), train.abstract_state()
    assert saved.frozen == abstract.frozen == {}
    assert jax.tree.structure(saved) == jax.tree.structure(abstract)
    restored = train.with_frozen(saved, base())
    assert jax.tree.structure(restored) == jax.tree.structure(state)


@pytest.mark.slow
def test_new_adapters_change_nothing_and_merged_ones_the_same() -> None:
    train = trainer()
    tokens = BATCH.tokens
    plain = train.start_from(base(), seed=5)
    untouched = nnx_logits(base(), tokens)
    np.testing.assert_array_equal(train.model(plain.params, plain.frozen)(tokens), untouched)
    state = trained(train)
    beside = train.model(state.params, state.frozen)(tokens)
    assert np.abs(beside - untouched).max() > 0.1
    np.testing.assert_allclose(nnx_logits(merged(state.params, state.frozen, SPEC), tokens), beside, atol=2e-4)


def nnx_logits(weights: dict[str, jax.Array], tokens: np.ndarray) -> jax.Array:
    full = Trainer(CONFIG, optax.identity(), make_mesh(devices=jax.devices()[:1]), "float32")
    return full.model(weights)(tokens)


def test_the_frozen_base_may_be_bfloat16_while_adapters_are_float32() -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    train = Trainer(CONFIG, optax.adam(1e-2), mesh, "bfloat16", lora=SPEC)
    state = trained(train)
    assert {value.dtype.name for value in state.frozen.values()} == {"bfloat16"}
    assert {value.dtype.name for value in state.params.values()} == {"float32"}


@pytest.mark.slow
def test_dropout_is_drawn_from_seed_step_and_part() -> None:
    spec = LoraSpec(rank=4, alpha=8.0, targets=("q_proj",), dropout=0.5)

    def gradient(seed: int, step: int) -> np.ndarray:
        train = trainer(spec, seed=seed)
        state = train.start_from(base(), seed=5)
        _, gradients = jax.jit(train.loss_and_gradients)(state.params, train.place(BATCH), state.frozen, step)
        return np.asarray(gradients["layers.0.attention.query.lora_b"])

    np.testing.assert_array_equal(gradient(0, 1), gradient(0, 1))
    assert np.abs(gradient(0, 1) - gradient(0, 2)).max() > 0
    assert np.abs(gradient(0, 1) - gradient(1, 1)).max() > 0


def test_dropout_is_not_part_of_evaluation() -> None:
    with_dropout, without = (
        trainer(LoraSpec(rank=4, alpha=8.0, targets=("q_proj",), dropout=dropout)) for dropout in (0.5, 0.0)
    )
    state = trained(without)
    losses = [float(train.evaluate_step(state, train.place(BATCH)).loss) for train in (with_dropout, without)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
