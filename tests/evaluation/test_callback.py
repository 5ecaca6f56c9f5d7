"""Verdicts between training steps: they equal those of `thinkprm evaluate` and leave the training as it was."""

from __future__ import annotations

import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support import tiny_model, tiny_training
from support.merged_lora import merged
from thinkprm_jax import load_model
from thinkprm_jax.arithmetic.task import example
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.callback import FIGURES, chain_case, verdict_callback
from thinkprm_jax.evaluation.results import judge_cases
from thinkprm_jax.evaluation.summary import summarise
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.kernels import Execution
from thinkprm_jax.model.lora import LoraSpec
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.optimizer import make_optimizer
from thinkprm_jax.training.trainer import Trainer, TrainState, parameters_of
from thinkprm_jax.verifier.thinkprm import ThinkPRM

SPLIT = "unseen"  # where mini is not perfect
ADAPTERS = LoraSpec(4, 8.0)


def one_layer(tokenizer) -> ModelConfig:
    """Half of the usual time to compile."""
    return dataclasses.replace(tiny_model.make_config(tokenizer), num_layers=1)


def make_trainer(config, lora: LoraSpec | None = None, learning_rate: float = 1e-3) -> Trainer:
    optimizer = make_optimizer(OptimizerConfig(learning_rate=learning_rate), 10)
    mesh = make_mesh(devices=jax.devices()[:1])
    execution = Execution(remat="layer")
    return Trainer(config, optimizer, mesh, jnp.float32, lora=lora, frozen_dtype="float32", execution=execution)


def model_of(trainer: Trainer, state: TrainState) -> Decoder:
    return trainer.model(state.params, state.frozen)


def make_hook(trainer: Trainer, tokenizer, examples: int, max_length: int = 160, slots: int = 2):
    return verdict_callback(
        lambda state: model_of(trainer, state),
        trainer.abstract_state(frozen=True),
        tokenizer,
        [example(0, index, SPLIT) for index in range(examples)],
        max_length=max_length,
        slots=slots,
        mesh=trainer.mesh,
    )


def figures_of(hook, state: TrainState) -> dict[str, float]:
    found = hook(state, 1)
    assert found.pop("verdict_seconds") > 0
    return found


def make_sampler(trainer: Trainer, state: TrainState, tokenizer, max_length: int = 160, slots: int = 2) -> Sampler:
    """A fresh one, that shares what is compiled with the hook."""
    model = model_of(trainer, state)
    model.execution = Execution()
    return Sampler(model, tokenizer, slots=slots, max_length=max_length, mesh=trainer.mesh)


def evaluated(sampler: Sampler, examples: int) -> dict[str, float]:
    """What `thinkprm evaluate` makes of a model."""
    cases = [arithmetic_case(0, index, SPLIT) for index in range(examples)]
    verifier = ThinkPRM(sampler=sampler, temperature=0.0)
    summary = summarise([outcome for _, _, outcome in judge_cases(verifier, cases)], resamples=0)
    figures = {name: summary.figure(figure).value for figure, name in FIGURES.items()}
    return {**figures, "verdict_failed": float(summary.failed)}


def test_chains_are_the_cases_of_evaluate() -> None:
    for index in range(16):
        case = dataclasses.replace(arithmetic_case(0, index, SPLIT), groups={})
        assert chain_case(example(0, index, SPLIT)) == case


@pytest.mark.slow
def test_figures_are_those_of_evaluate() -> None:
    model, tokenizer = load_model("mini", dtype="float32")
    trainer = make_trainer(model.config)
    state = trainer.start_from(parameters_of(model))
    figures = figures_of(make_hook(trainer, tokenizer, 16, max_length=512, slots=16), state)
    sampler = Sampler(model, tokenizer, slots=16, max_length=512)
    assert figures == pytest.approx(evaluated(sampler, 16), abs=1e-6)
    assert 0.5 < figures["verdict_f1"] <= 1


@pytest.mark.slow
def test_adapters_count(mini_tokenizer) -> None:
    base = Decoder(one_layer(mini_tokenizer), rngs=nnx.Rngs(0))
    trainer, whole = make_trainer(base.config, ADAPTERS), make_trainer(base.config)
    state = trainer.start_from(parameters_of(base))
    noise = jax.random.key(1)
    moved = {name: value + 0.1 * jax.random.normal(noise, value.shape) for name, value in state.params.items()}
    state = dataclasses.replace(state, params=moved)
    adapted = whole.start_from(merged(state.params, state.frozen, ADAPTERS))
    figures = figures_of(make_hook(trainer, mini_tokenizer, 3), state)
    assert figures == pytest.approx(evaluated(make_sampler(whole, adapted, mini_tokenizer), 3), nan_ok=True)
    plain = whole.start_from(parameters_of(base))
    assert figures != pytest.approx(evaluated(make_sampler(whole, plain, mini_tokenizer), 3), nan_ok=True)


@pytest.mark.slow
def test_training_goes_on_as_without(mini_tokenizer) -> None:
    """Bit for bit."""
    trainer = make_trainer(one_layer(mini_tokenizer))
    hook = make_hook(trainer, mini_tokenizer, 2)

    def run(judged: bool) -> TrainState:
        state = trainer.init(0)
        for seed in range(2):
            batch = tiny_training.random_batch([40, 30], [9, 9], 48, 200, seed)
            state, _ = trainer.train_step(state, trainer.place(batch))
            if judged:
                hook(state, seed)
        return state

    jax.tree.map(np.testing.assert_array_equal, run(False), run(True))


@pytest.mark.slow
def test_the_next_weights_compile_nothing_and_are_the_ones_that_judge(mini_tokenizer) -> None:
    trainer = make_trainer(one_layer(mini_tokenizer), learning_rate=0.0)
    hook = make_hook(trainer, mini_tokenizer, 3)
    first, other = trainer.init(0), trainer.init(1)
    shared = make_sampler(trainer, other, mini_tokenizer)
    figures = [figures_of(hook, first)]
    compiled = shared.compilations
    assert compiled
    # A step that moves nothing: new arrays, and chains as long as before.
    batch = trainer.place(tiny_training.random_batch([40, 30], [9, 9], 48, 200))
    first, _ = trainer.train_step(first, batch)
    figures.append(figures_of(hook, first))
    assert shared.compilations == compiled
    assert figures[1] == pytest.approx(figures[0], nan_ok=True)
    # Other weights: no slot holds the same prompts any more.
    figures.append(figures_of(hook, other))
    assert figures[2] == pytest.approx(evaluated(shared, 3), nan_ok=True)
    assert figures[2] != pytest.approx(figures[0], nan_ok=True)


@pytest.mark.slow
def test_nothing_is_kept_between_evaluations(mini_tokenizer) -> None:
    trainer = make_trainer(one_layer(mini_tokenizer))
    hook, state = make_hook(trainer, mini_tokenizer, 2), trainer.init(0)
    gc.collect()
    before = {id(array) for array in jax.live_arrays()}
    hook(state, 1)
    gc.collect()
    kept = sum(array.nbytes for array in jax.live_arrays() if id(array) not in before)
    assert kept < 0.1 * sum(array.nbytes for array in state.params.values())  # no weights, no cache


def test_settings_that_cannot_work_are_refused_at_once(mini_tokenizer, monkeypatch) -> None:
    trainer = make_trainer(one_layer(mini_tokenizer))
    with pytest.raises(UserError, match="max_length 40000 is above the model's"):
        make_hook(trainer, mini_tokenizer, 1, max_length=40_000)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="verdicts: a run of several processes cannot judge"):
        make_hook(trainer, mini_tokenizer, 1)


def test_a_sampler_takes_weights_of_its_own_model_only(mini_tokenizer) -> None:
    sampler = Sampler(tiny_model.make_decoder(mini_tokenizer), mini_tokenizer, slots=2, max_length=64)
    other = make_trainer(one_layer(mini_tokenizer))
    with pytest.raises(ValueError, match="a model of another architecture"):
        sampler.use(model_of(other, other.init(0)))
