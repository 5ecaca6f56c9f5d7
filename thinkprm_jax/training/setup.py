"""From the recipe to the parts of a run: folder, model, data, trainer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from thinkprm_jax.checkpoint.huggingface import load_model, resolve_folder
from thinkprm_jax.data.batches import Batch, BatchState, batches
from thinkprm_jax.data.sources import ChainDataset, arithmetic_chains, listed_chains
from thinkprm_jax.errors import UserError
from thinkprm_jax.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.recipe import differences, dump_recipe, load_recipe
from thinkprm_jax.text.tokenizer import Tokenizer
from thinkprm_jax.training.config import FREE_FIELDS, DataSource, ModelSource, TrainRecipe
from thinkprm_jax.training.optimizer import make_optimizer, make_schedule
from thinkprm_jax.training.trainer import Trainer, TrainState, abstract_parameters, parameters_of


def open_run(recipe: TrainRecipe) -> Path:
    """The run's folder, with the resolved recipe in it. Before its first checkpoint a run may change its recipe.

    Raises:
      UserError: the folder holds a run of another recipe; names the fields.
    """
    folder = Path(recipe.output)
    saved = folder / "recipe.yaml"
    if saved.exists() and any(path.name.isdigit() for path in (folder / "checkpoints").glob("*")):
        changed = differences(load_recipe(TrainRecipe, saved), recipe)
        changed = {name: pair for name, pair in changed.items() if not name.startswith(FREE_FIELDS)}
        if changed:
            listed = ", ".join(f"{name} ({old!r} there, {new!r} now)" for name, (old, new) in changed.items())
            raise UserError(f"{folder} holds a run of another recipe: {listed}; choose another output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = saved.with_suffix(".tmp")  # a kill must not leave half a recipe
        temporary.write_text(dump_recipe(recipe), encoding="utf-8")
        os.replace(temporary, saved)
    except OSError as error:
        raise UserError(f"output {folder}: {error.strerror}") from None
    return folder


def load_source(source: ModelSource) -> tuple[ModelConfig, Tokenizer, dict | None]:
    """The model's shapes, its tokenizer, and its weights by path (None: from scratch)."""
    if source.pretrained is not None:
        model, tokenizer = load_model(source.pretrained, dtype="float32")
        if source.tokenizer is not None:
            tokenizer = Tokenizer.load(resolve_folder(source.tokenizer))
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"the tokenizer has ids up to {tokenizer.vocab_size - 1}, the model of {source.pretrained} "
                f"only {model.config.vocab_size} embeddings"
            )
        return model.config, tokenizer, parameters_of(model)
    assert source.scratch is not None
    assert source.tokenizer is not None
    tokenizer = Tokenizer.load(resolve_folder(source.tokenizer))
    sizes = source.scratch
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads,
        head_dim=sizes.head_dim or sizes.hidden_size // sizes.num_heads,
        model_type=sizes.model_type,
        rope_theta=sizes.rope_theta,
        rms_norm_eps=sizes.rms_norm_eps,
        qkv_bias=sizes.model_type == "qwen2",
        tie_embeddings=sizes.tie_embeddings,
        max_position_embeddings=sizes.max_position_embeddings,
        initializer_range=sizes.initializer_range,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    return config, tokenizer, None


def make_dataset(source: DataSource, recipe: TrainRecipe, tokenizer: Tokenizer, name: str) -> ChainDataset:
    if source.arithmetic is not None:
        arithmetic = source.arithmetic
        chain, size = arithmetic_chains(arithmetic.seed, arithmetic.split, arithmetic.start), arithmetic.examples
    else:
        from thinkprm_jax.data.chains import read_chains

        assert source.chains is not None
        chains = read_chains(source.chains)
        chain, size = listed_chains(chains), len(chains)
    return ChainDataset(size, chain, tokenizer, recipe.data.buckets[-1], recipe.loss.verdict_weight, name)


def make_trainer(recipe: TrainRecipe, config: ModelConfig, steps: int) -> Trainer:
    mesh = make_mesh(recipe.mesh.data, recipe.mesh.fsdp, recipe.mesh.tensor)
    split = mesh.shape["data"] * mesh.shape["fsdp"] * recipe.micro_batches
    for bucket in recipe.data.buckets:
        if recipe.data.rows_of(bucket) % split:
            raise UserError(
                f"bucket {bucket} has {recipe.data.rows_of(bucket)} rows, no multiple of data x fsdp x "
                f"micro_batches = {split}"
            )
    return Trainer(
        config,
        make_optimizer(recipe.optimizer, steps),
        mesh,
        dtype=jnp.dtype(recipe.model.dtype),
        micro_batches=recipe.micro_batches,
        learning_rate=make_schedule(recipe.optimizer, recipe.optimizer.learning_rate, steps),
    )


def count_steps(recipe: TrainRecipe, dataset: ChainDataset) -> int:
    """The steps of the run; with ``epochs``, by walking through the batches once without computing them."""
    if recipe.steps is not None:
        return recipe.steps
    steps = sum(1 for _ in training_batches(recipe, dataset))
    if not steps:
        raise UserError("the training data: no example fits into a bucket")
    return steps


def training_batches(
    recipe: TrainRecipe, dataset: ChainDataset, state: BatchState | None = None
) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """The stream of batches from ``state`` on, each with the position after it."""
    data = recipe.data
    return batches(dataset, data.buckets, data.rows_of, recipe.seed, data.shuffle, recipe.epochs, state)


def evaluation_batches(recipe: TrainRecipe, tokenizer: Tokenizer) -> list[Batch]:
    """The held-out set, prepared once."""
    if recipe.data.evaluation is None:
        return []
    dataset = make_dataset(recipe.data.evaluation, recipe, tokenizer, "evaluation data")
    data = recipe.data
    prepared = [batch for batch, _ in batches(dataset, data.buckets, data.rows_of, shuffle=False, epochs=1)]
    if not prepared:
        raise UserError("the evaluation data: no example fits into a bucket")
    return prepared


def save_model_files(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """config.json and the tokenizer, so that the run can be exported without its sources."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(config.to_hf(), indent=2) + "\n", encoding="utf-8")
    tokenizer.save(model)


def initial_state(trainer: Trainer, seed: int, weights: dict | None) -> TrainState:
    return trainer.init(seed) if weights is None else trainer.start_from(weights)


def parameter_count(config: ModelConfig) -> int:
    return sum(math.prod(shape.shape) for shape in abstract_parameters(config).values())
