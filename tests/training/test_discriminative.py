"""The discriminative task on the trainer: the loss is the paper's, and the verifier reads what it trains."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import torch

from support import tiny_model
from support.small_batches import make_batch, make_packed_batch
from thinkprm_jax.data.batches import Batch, batches
from thinkprm_jax.data.chains import LabelledChain
from thinkprm_jax.data.discriminative import DiscriminativeDataset, StepEncoder
from thinkprm_jax.data.sources import ListedChains
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.loss import Objective
from thinkprm_jax.training.trainer import Trainer
from thinkprm_jax.verifier.discriminative import DiscriminativePRM


def chain(rng: np.random.Generator) -> LabelledChain:
    """A solution whose first error a reader can see: the step that says `different`."""
    steps, labels = [], []
    for _ in range(int(rng.integers(1, 5))):
        correct = bool(rng.random() < 0.6) and 0 not in labels
        steps.append(f"{rng.integers(99)} is {'the same' if correct else 'different'}.")
        labels.append(int(correct))
    return LabelledChain(f"Is it {rng.integers(99)}?", steps, "", labels, 0 not in labels)


def dataset(tokenizer: Tokenizer, size: int, seed: int = 0) -> DiscriminativeDataset:
    rng = np.random.default_rng(seed)
    chains = ListedChains([chain(rng) for _ in range(size)])
    return DiscriminativeDataset(size, chains, StepEncoder(tokenizer), 96)


def make_trainer(tokenizer: Tokenizer) -> Trainer:
    config = dataclasses.replace(tiny_model.make_config(tokenizer), num_layers=1)
    mesh = make_mesh(devices=jax.devices()[:1])
    objective = Objective(StepEncoder(tokenizer).marks.choices)
    return Trainer(config, optax.adam(1e-2), mesh, "float32", objective=objective)


@pytest.fixture(scope="module")
def trainer(mini_tokenizer: Tokenizer) -> Trainer:
    return make_trainer(mini_tokenizer)


@pytest.mark.slow
def test_the_loss_is_binary_cross_entropy_of_the_logit_difference(
    trainer: Trainer, mini_tokenizer: Tokenizer
) -> None:
    data = dataset(mini_tokenizer, 6)
    examples = [data[index] for index in range(6)]
    batch = make_batch(examples, 8, 96)
    state = trainer.init(0)
    sums = trainer.evaluate_step(state, trainer.place(batch))
    logits = np.asarray(trainer.model(state.params)(batch.tokens))
    positive, negative = StepEncoder(mini_tokenizer).marks.choices
    rows, places = np.nonzero(batch.weights)
    difference = torch.tensor(logits[rows, places, positive] - logits[rows, places, negative])
    labels = torch.tensor(batch.targets[rows, places] == positive)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(difference, labels.float(), reduction="sum")
    assert float(sums.loss) == pytest.approx(expected.item(), rel=1e-5)
    assert int(sums.tokens) == len(labels) == batch.target_tokens
    assert int(sums.hits) == int(((difference > 0) == labels).sum())


def test_packed_rows_have_the_loss_of_padded_ones(trainer: Trainer, mini_tokenizer: Tokenizer) -> None:
    data = dataset(mini_tokenizer, 6)
    examples = [data[index] for index in range(6)]
    padded = make_batch(examples, 6, 96)
    packed = make_packed_batch([examples[:2], examples[2:3], examples[3:5], examples[5:]], 4, 192)
    state = trainer.init(0)
    first, second = (trainer.evaluate_step(state, trainer.place(batch)) for batch in (padded, packed))
    assert float(second.loss) == pytest.approx(float(first.loss), rel=1e-5)
    assert int(second.tokens) == int(first.tokens)


def endless(data: DiscriminativeDataset) -> Iterator[Batch]:
    return (batch for batch, _ in batches(data, [96], lambda _: 16))


@pytest.mark.slow
def test_what_is_trained_is_what_the_verifier_reads(trainer: Trainer, mini_tokenizer: Tokenizer) -> None:
    state = trainer.init(0)
    for batch in itertools.islice(endless(dataset(mini_tokenizer, 400)), 60):
        state, metrics = trainer.train_step(state, trainer.place(batch))
    assert float(metrics["loss"]) < 0.1  # it begins at log 2
    verifier = DiscriminativePRM(model=trainer.model(state.params), tokenizer=mini_tokenizer)
    rng = np.random.default_rng(1)
    unseen = [chain(rng) for _ in range(60)]
    verdicts = dict(verifier.verify((found.problem, found.steps) for found in unseen))
    first_errors = [found.labels.index(0) if 0 in found.labels else -1 for found in unseen]
    right = [verdicts[index].first_error == truth for index, truth in enumerate(first_errors)]
    assert np.mean(right) > 0.95


def test_a_recipe_of_the_task(tmp_path: Path, mini_tokenizer: Tokenizer) -> None:
    row = {
        "question": {"problem": "1 + 1?"},
        "label": {"steps": [{"completions": [{"text": "2.", "rating": 1}], "chosen_completion": 0}]},
    }
    (tmp_path / "prm800k.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "output: run\nsteps: 1\ntask: discriminative\nmodel: {pretrained: mini}\n"
        f"data: {{train: {{prm800k: {tmp_path}/prm800k.jsonl}}, buckets: [64], rows: 1}}\n",
        encoding="utf-8",
    )
    recipe = load_recipe(TrainRecipe, tmp_path / "recipe.yaml")
    data = setup.make_dataset(recipe.data.train, recipe, mini_tokenizer, "training data")
    marks = StepEncoder(mini_tokenizer).marks
    assert setup.label_choices(recipe, mini_tokenizer) == marks.choices
    assert data[0].targets[-1] == marks.positive
    arithmetic = load_recipe(
        TrainRecipe, tmp_path / "recipe.yaml", ["data.train.prm800k=null", "data.train.arithmetic.examples=5"]
    )
    data = setup.make_dataset(arithmetic.data.train, arithmetic, mini_tokenizer, "training data")
    assert isinstance(data, DiscriminativeDataset)
    assert len(data) == 5
    generative = dataclasses.replace(arithmetic, task="generative")
    assert setup.label_choices(generative, mini_tokenizer) is None
