"""Loss, gradients and AdamW against torch and transformers, on small random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from support import oracle, tiny_training
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.checkpoint.names import stored_tensors
from thinkprm_jax.data.batches import Batch
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.optimizer import make_optimizer, make_schedule
from thinkprm_jax.training.trainer import Trainer, parameters_of

STEPS = 20
OPTIMIZER = OptimizerConfig(
    learning_rate=3e-3, b2=0.95, weight_decay=0.1, clip_norm=1.0, schedule="linear", warmup_steps=5
)
LENGTHS, PROMPTS = [25, 9, 17], [5, 6, 1]  # of three rows; a fourth is empty


class Pair(NamedTuple):
    theirs: transformers.PreTrainedModel
    config: ModelConfig
    params: dict[str, np.ndarray]


def make_pair(folder: Path, tied: bool, family: str = "qwen2", **keys: Any) -> Pair:
    theirs = oracle.random_model(family, 4, 2, tied=tied, **keys)
    ours, _ = load_model(oracle.save(theirs, folder))
    return Pair(theirs, ours.config, jax.device_get(parameters_of(ours)))


def make_trainer(config: ModelConfig, dtype: str = "float32", micro_batches: int = 1) -> Trainer:
    mesh = make_mesh(devices=jax.devices()[:1])
    rate = make_schedule(OPTIMIZER, OPTIMIZER.learning_rate, STEPS)
    return Trainer(config, make_optimizer(OPTIMIZER, STEPS), mesh, dtype, micro_batches, rate)


def batch_of(seed: int = 0, length: int = 24) -> Batch:
    return tiny_training.random_batch(
        [min(n, length + 1) for n in LENGTHS], PROMPTS, length, oracle.VOCABULARY, seed
    )


def torch_loss(theirs: transformers.PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Each row alone and without padding."""
    total = torch.zeros(())
    for tokens, targets, weights in zip(batch.tokens, batch.targets, batch.weights, strict=True):
        length = int(np.nonzero(weights)[0].max(initial=-1)) + 1
        if length:
            logits = theirs(torch.tensor(tokens[None, :length])).logits[0]
            wanted = torch.tensor(targets[:length], dtype=torch.long)
            losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
            total = total + (losses * torch.tensor(weights[:length])).sum()
    return total / float(batch.weights.sum())


def in_our_layout(
    theirs: transformers.PreTrainedModel, config: ModelConfig, gradients: bool
) -> dict[str, np.ndarray]:
    """Their parameters or gradients by our paths, kernels as [in, out]."""
    named = dict(theirs.named_parameters())
    arrays = {}
    for tensor in stored_tensors(config):
        parameter = named[tensor.name]
        value = (parameter.grad if gradients else parameter.detach()).numpy().copy()
        arrays[tensor.path] = value.T if tensor.transposed else value
    return arrays


def assert_close(ours: dict, theirs: dict, tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def untied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    keys = {"head_dim": 12} if request.param == "qwen3" else {}
    return make_pair(tmp_path_factory.mktemp("untied"), False, request.param, **keys)


def loss_and_gradients(pair: Pair, batch: Batch, *options: object) -> tuple:
    trainer = make_trainer(pair.config, *options)
    return jax.jit(trainer.loss_and_gradients)(pair.params, trainer.place(batch))


def expect(pair: Pair, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
    pair.theirs.zero_grad()
    loss = torch_loss(pair.theirs, batch)
    loss.backward()
    return loss.item(), in_our_layout(pair.theirs, pair.config, gradients=True)


def test_loss_and_gradients(untied: Pair) -> None:
    batch = batch_of()
    batch.weights[batch.weights > 0] *= np.random.default_rng(1).choice([1.0, 3.0], batch.target_tokens)
    loss, expected = expect(untied, batch)
    sums, gradients = loss_and_gradients(untied, batch)
    assert float(sums.loss / sums.weight) == pytest.approx(loss, abs=1e-4)
    assert float(sums.tokens) == batch.target_tokens == sum(LENGTHS) - sum(PROMPTS)
    assert float(sums.examples) == len(LENGTHS)
    assert_close(gradients, expected, 1e-4)

    _, half = loss_and_gradients(untied, batch, "bfloat16")
    norm, errors = np.linalg.norm, {name: half[name] - exact for name, exact in gradients.items()}
    for name, error in errors.items():  # products in bfloat16 round, and no more than that
        assert half[name].dtype == jnp.float32
        assert norm(error) < 0.15 * norm(gradients[name]), name  # a key's bias is a small rest of large terms
    assert norm(list(map(norm, errors.values()))) < 0.03 * norm(list(map(norm, gradients.values())))


def test_parts_of_a_batch_give_its_gradients(tied: Pair) -> None:
    """The parts have very different numbers of targets: an average of averages would be far off."""
    batch = tiny_training.random_batch([25, 24, 4], [1, 1, 2], 24, oracle.VOCABULARY)
    first, second = batch.weights[:2].sum(), batch.weights[2:].sum()
    assert first > 20 * second
    loss, expected = expect(tied, batch)
    sums, gradients = loss_and_gradients(tied, batch, "float32", 2)
    assert float(sums.loss / sums.weight) == pytest.approx(loss, abs=1e-4)
    assert float(sums.tokens) == first + second
    assert_close(gradients, expected, 1e-4)


@pytest.mark.slow
def test_twenty_steps_of_adamw_and_one_compilation_for_each_bucket(tied: Pair) -> None:
    decayed = [p for p in tied.theirs.parameters() if p.ndim == 2]
    others = [p for p in tied.theirs.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": OPTIMIZER.weight_decay}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.0, betas=(OPTIMIZER.b1, OPTIMIZER.b2), eps=OPTIMIZER.eps)

    trainer = make_trainer(tied.config)
    state = trainer.start_from(tied.params)
    for step in range(STEPS):
        batch = batch_of(seed=step, length=(24, 16)[step % 2])
        rate = OPTIMIZER.learning_rate * min((step + 1) / 5, 1.0) * min((STEPS - step) / 15, 1.0)
        adam.zero_grad()
        loss = torch_loss(tied.theirs, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(tied.theirs.parameters(), OPTIMIZER.clip_norm)
        for group in adam.param_groups:
            group["lr"] = rate
        adam.step()

        state, metrics = trainer.train_step(state, trainer.place(batch))
        assert float(metrics["loss"]) == pytest.approx(loss.item(), abs=1e-3)
        assert float(metrics["gradient_norm"]) == pytest.approx(norm.item(), rel=1e-3)
        assert float(metrics["learning_rate"]) == pytest.approx(rate, rel=1e-5)
    assert int(state.step) == STEPS
    assert trainer.compiles() == 2
    moved = in_our_layout(tied.theirs, tied.config, gradients=False)
    assert_close(state.params, moved, 1e-3)
    assert max(np.abs(moved[name] - tied.params[name]).max() for name in moved) > 0.02
