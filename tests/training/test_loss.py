"""The head and its loss, chunk by chunk: the numbers of the plain formula, in a fraction of its memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thinkprm_jax.training.loss import Head, choice_sums, token_sums

B, T, D, V = 3, 10, 8, 19


def batch() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(3), 4)
    x = jax.random.normal(keys[0], (B, T, D))
    kernel = jax.random.normal(keys[1], (V, D))
    targets = jax.random.randint(keys[2], (B, T), 0, V)
    weights = jnp.where(jax.random.uniform(keys[3], (B, T)) < 0.6, 2.0, 0.0).at[2].set(0.0)
    return x, kernel, targets, weights


def plain_loss(x: jax.Array, kernel: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    logits = jnp.einsum("btd,vd->btv", x, kernel, precision="highest")
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(picked * weights)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 12, 30, 1000])  # tokens; rows x positions is 30
def test_any_chunk_gives_loss_and_gradients_of_the_plain_formula(tied: bool, chunk: int) -> None:
    x, kernel, targets, weights = batch()
    expected, expected_grads = jax.value_and_grad(plain_loss, argnums=(0, 1))(x, kernel, targets, weights)

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        given = kernel if tied else kernel.T
        return 0.5 * token_sums(Head(tied, "float32", chunk), x, given, targets, weights).loss

    loss, grads = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(x, kernel)
    assert loss == pytest.approx(0.5 * float(expected), rel=1e-6)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(mine, 0.5 * theirs, atol=2e-5)


@pytest.mark.parametrize("chunk", [4, 1000])
def test_counts(chunk: int) -> None:
    x, kernel, targets, weights = batch()
    best = np.argmax(np.einsum("btd,vd->btv", x, kernel), axis=-1)
    targets = targets.at[0].set(best[0])  # row 0 is right everywhere, row 2 has no target
    sums = token_sums(Head(True, "float32", chunk), x, kernel, targets, weights)
    counted = np.asarray(weights) > 0
    assert float(sums.weight) == float(np.sum(weights))
    assert float(sums.tokens) == counted.sum()
    assert float(sums.hits) == ((best == np.asarray(targets)) & counted).sum()
    assert (float(sums.examples), float(sums.exact)) == (2, 1)


def test_choices_are_a_binary_cross_entropy() -> None:
    x, kernel, _, weights = batch()
    plus, minus = 4, 11
    targets = jnp.where(jax.random.uniform(jax.random.key(9), (B, T)) < 0.5, plus, minus)

    def binary(x: jax.Array) -> jax.Array:
        difference = jnp.einsum("btd,d->bt", x, kernel[plus] - kernel[minus], precision="highest")
        signed = jnp.where(targets == plus, difference, -difference)
        return jnp.sum(jax.nn.softplus(-signed) * weights)

    def ours(x: jax.Array) -> jax.Array:
        return choice_sums((plus, minus), x, kernel[jnp.asarray([plus, minus])], targets, weights).loss

    expected, expected_grad = jax.value_and_grad(binary)(x)
    loss, grad = jax.value_and_grad(ours)(x)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-5)


def test_logits_of_a_long_batch_never_exist_at_once() -> None:
    """4 rows of 4,096 tokens over 152,064 words: 10 GB of float32 logits. Read from the compiled program."""
    rows, length, vocabulary, width = 4, 4096, 152_064, 16
    arguments = [
        jax.ShapeDtypeStruct((rows, length, width), jnp.float32),
        jax.ShapeDtypeStruct((vocabulary, width), jnp.float32),
        jax.ShapeDtypeStruct((rows, length), jnp.int32),
        jax.ShapeDtypeStruct((rows, length), jnp.float32),
    ]

    def peak(chunk: int) -> int:
        gradient = jax.grad(lambda *a: token_sums(Head(True, "bfloat16", chunk), *a).loss, argnums=(0, 1))
        return jax.jit(gradient).lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    everything = rows * length * vocabulary * 4
    assert peak(1024) < 0.12 * everything
    assert peak(rows * length) > everything  # and without chunks the analysis does see them
