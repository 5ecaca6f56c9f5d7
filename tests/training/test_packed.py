"""Several examples in one row: the same loss and gradients as each in a row of its own."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from support.small_batches import make_batch, make_packed_batch
from thinkprm_jax.data.batches import Batch, TokenisedExample
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.kernels import Execution
from thinkprm_jax.training.trainer import Trainer

LENGTH = 256
CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
    qkv_bias=True, initializer_range=0.3,
)  # fmt: skip
ROWS = [[40, 100, 113], [255], [9, 3]]  # tokens of the examples of each packed row


def examples() -> list[list[TokenisedExample]]:
    rng = np.random.default_rng(0)

    def example(size: int) -> TokenisedExample:
        weights = np.ones(size, np.float32)
        weights[: size // 3] = 0.0
        return TokenisedExample(rng.integers(0, CONFIG.vocab_size, size).astype(np.int32), weights)

    return [[example(size) for size in row] for row in ROWS]


def packed(rows: list[list[TokenisedExample]]) -> Batch:
    return make_packed_batch(rows, len(rows), LENGTH)


def trainer(**options: object) -> Trainer:
    mesh = make_mesh(devices=jax.devices()[:1])
    return Trainer(CONFIG, optax.sgd(0.1), mesh, "float32", **options)


@pytest.mark.slow
def test_packed_and_unpacked_loss_and_gradients_are_equal() -> None:
    rows = examples()
    flat = [example for row in rows for example in row]
    train = trainer()
    params = train.init(0).params
    step = jax.jit(train.loss_and_gradients)
    alone, gradients = step(params, train.place(make_batch(flat, len(flat), LENGTH)))
    together, packed_gradients = step(params, train.place(packed(rows)))
    assert float(together.loss) == pytest.approx(float(alone.loss), rel=1e-6)
    assert float(together.tokens) == float(alone.tokens)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(packed_gradients[name], gradient, atol=2e-6, err_msg=name)


def test_chains_that_are_right_are_counted_one_by_one_in_packed_rows() -> None:
    rows = examples()
    train = trainer()
    state = train.init(0)
    follows = jax.jit(lambda tokens: train.model(state.params)(tokens).argmax(-1))
    # Two chains become what the model continues them with; one in a row with others, one last in its row.
    for example in (rows[0][1], rows[2][1]):
        example.weights[: max(len(example.ids) - 2, 1)] = 0.0
        example.weights[-1] = 1.0
        for place in np.flatnonzero(example.weights):
            example.ids[place] = follows(example.ids[None])[0, place - 1]
    flat = [example for row in rows for example in row]
    alone = train.evaluate_step(state, train.place(make_batch(flat, len(flat), LENGTH)))
    together = train.evaluate_step(state, train.place(packed(rows)))
    assert (float(alone.examples), float(alone.exact)) == (6, 2)
    assert (float(together.examples), float(together.exact)) == (6, 2)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["products", "layer"])
def test_rematerialisation_changes_no_gradient(remat: str) -> None:
    batch = packed(examples())
    plain, saving = trainer(), trainer(execution=Execution(remat=remat))
    params = plain.init(0).params
    expected = jax.jit(plain.loss_and_gradients)(params, plain.place(batch))
    found = jax.jit(saving.loss_and_gradients)(params, saving.place(batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
