"""Layers in one loop over stacked weights: the same loss, gradients, weights and files as without a loop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pytest

from support import processes, tiny_model, tiny_training
from support.small_batches import make_packed_batch
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.data.batches import Batch, TokenisedExample
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.kernels import Execution
from thinkprm_jax.model.lora import LoraSpec
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import OptimizerConfig, TrainRecipe
from thinkprm_jax.training.optimizer import make_optimizer
from thinkprm_jax.training.trainer import Trainer, TrainState, parameters_of

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8,
    qkv_bias=True, initializer_range=0.3,
)  # fmt: skip
ADAPTERS = LoraSpec(rank=4, alpha=8.0, targets=("q_proj", "down_proj"), dropout=0.3)


def packed_rows() -> Batch:
    rng = np.random.default_rng(0)
    rows = [[9, 14, 6], [30], [3, 17]]  # tokens of the examples of each row
    examples = [[_example(rng, size) for size in row] for row in rows]
    return make_packed_batch(examples, 4, 32)


def _example(rng: np.random.Generator, size: int) -> TokenisedExample:
    weights = np.ones(size, np.float32)
    weights[: size // 3] = 0.0
    return TokenisedExample(rng.integers(0, CONFIG.vocab_size, size).astype(np.int32), weights)


def make_trainer(scan: bool, remat: str = "none", lora: LoraSpec | None = None) -> Trainer:
    # Adam with its usual eps makes a step of what a gradient of almost nothing is rounded to.
    optimizer = OptimizerConfig(learning_rate=0.01, eps=1e-3, weight_decay=0.1, clip_norm=0.5)
    return Trainer(
        CONFIG,
        make_optimizer(optimizer, 10),
        make_mesh(devices=jax.devices()[:1]),
        "float32",
        lora=lora,
        frozen_dtype="float32",
        execution=Execution(scan=scan, remat=remat),
    )


def base() -> dict[str, jax.Array]:
    from flax import nnx

    from thinkprm_jax.model.decoder import Decoder

    return parameters_of(Decoder(CONFIG, rngs=nnx.Rngs(1)))


def start(trainer: Trainer) -> TrainState:
    return trainer.start_from(base(), seed=5)


def assert_close(
    ours: Mapping[str, jax.Array], theirs: Mapping[str, jax.Array], within: float | None = None
) -> None:
    """To the rounding of float32: by default of the largest number of each array."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        size = max(float(np.abs(value).max()), 1e-3)
        np.testing.assert_allclose(ours[name], value, atol=within or 2e-5 * size, err_msg=name)


def assert_equal(ours: object, theirs: object) -> None:
    """Bit for bit, with the same names."""
    leaves, others = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (ours, theirs))
    assert leaves.keys() == others.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(others[path]), err_msg=str(path))


@pytest.mark.parametrize(("remat", "lora"), [("none", None), ("products", None), ("layer", ADAPTERS)])
def test_loss_and_gradients_are_those_of_layers_one_by_one(remat: str, lora: LoraSpec | None) -> None:
    found = []
    for scan in (False, True):
        trainer = make_trainer(scan, remat, lora)
        state = start(trainer)
        arrays = trainer.place(packed_rows())
        sums, gradients = jax.jit(trainer.loss_and_gradients)(state.params, arrays, state.frozen, 7)
        found.append((sums, trainer.to_checkpoint(TrainState(gradients, (), state.step)).params))
    (sums, gradients), (scanned_sums, scanned_gradients) = found
    np.testing.assert_allclose(scanned_sums, sums, rtol=1e-6)
    assert_close(scanned_gradients, gradients)


@pytest.mark.parametrize("lora", [None, ADAPTERS])
def test_a_run_goes_on_exactly_in_the_other_form(lora: LoraSpec | None, tmp_path: Path) -> None:
    """Saved in one form and read in the other nothing has changed but the layout; steps differ by rounding."""
    trainers = {scan: make_trainer(scan, "layer", lora) for scan in (False, True)}
    after = {}
    for scan, trainer in trainers.items():
        state = start(trainer)
        for _ in range(2):
            state, _ = trainer.train_step(state, trainer.place(packed_rows()))
        saved = trainer.to_checkpoint(state)
        with CheckpointStore(tmp_path / str(scan)) as store:
            store.save(2, saved, {"data": 0})
        with CheckpointStore(tmp_path / str(scan)) as store:
            read, _ = store.restore(trainers[not scan].abstract_state())
        assert_equal(read, saved)
        other = trainers[not scan].with_frozen(trainers[not scan].from_checkpoint(read), base())
        assert_equal(trainers[not scan].to_checkpoint(other), saved)
        other, _ = trainers[not scan].train_step(other, trainers[not scan].place(packed_rows()))
        after[scan] = trainers[not scan].to_checkpoint(other)
    assert_close(after[True].params, after[False].params, within=1e-5)  # a step moves a weight by 1e-2


def test_the_first_weights_are_the_seed_s_in_both_forms() -> None:
    states = [(trainer := make_trainer(scan)).to_checkpoint(trainer.init(3)) for scan in (False, True)]
    assert_equal(*states)


def test_a_model_of_a_scanned_state_is_an_ordinary_one() -> None:
    trainer = make_trainer(True)
    tokens = packed_rows().tokens
    state = trainer.init(3)
    model = trainer.model(state.params)
    expected = make_trainer(False)
    np.testing.assert_array_equal(model(tokens), expected.model(expected.init(3).params)(tokens))
    abstract = trainer.abstract_state(frozen=True)
    shapes = jax.tree.map(np.shape, parameters_of(trainer.model(abstract.params)))
    assert shapes == jax.tree.map(np.shape, parameters_of(model))


def test_only_matrices_decay() -> None:
    """The scales of norms and the biases of all layers are a matrix when they are stacked."""
    moved = {}
    for scan in (False, True):
        trainer = make_trainer(scan)
        state = trainer.init(3)
        nothing = jax.tree.map(np.zeros_like, state.params)
        updates, _ = trainer.optimizer.update(nothing, state.opt_state, state.params)
        moved[scan] = trainer.to_checkpoint(TrainState(updates, (), state.step)).params
    assert_close(moved[True], moved[False])


LORA = {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "down_proj"]}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    folder = tiny_model.save_folder(tmp_path / "base")
    model = {"pretrained": str(folder), "dtype": "float32"}
    return tiny_training.write_recipe(tmp_path, model=model, lora=LORA, optimizer={"learning_rate": 0.01})


def test_a_run_of_adapters_goes_on_in_the_other_form(recipe_file: Path, tmp_path: Path) -> None:
    """With its base, whose fingerprint is that of the weights by layer."""
    recipes = [load_recipe(TrainRecipe, recipe_file, [f"model.scan_layers={scan}"]) for scan in ("true", "false")]
    config, tokenizer = setup.read_model(recipes[0].model)
    dataset = setup.make_dataset(recipes[0].data.train, recipes[0], tokenizer, "training data")
    mesh = make_mesh(devices=jax.devices()[:1])
    trainers = [
        setup.make_trainer(recipe, config, 10, mesh, setup.choose_execution(recipe, config, "cpu")[0])
        for recipe in recipes
    ]
    with CheckpointStore(tmp_path / "checkpoints") as store:
        state, _, record = setup.start_or_resume(recipes[0], trainers[0], dataset, store)
        _, _, position = next(setup.training_batches(recipes[0], dataset, trainers[0]))
        store.save(1, trainers[0].to_checkpoint(state), {**record, "data": position})
        store.wait()
        resumed, _, again = setup.start_or_resume(recipes[1], trainers[1], dataset, store)
    assert "layers.mlp.down.lora_a" in state.params
    assert "layers.0.mlp.down.lora_a" in resumed.params
    assert again["base_fingerprint"] == record["base_fingerprint"]
    assert_equal(trainers[0].to_checkpoint(state), trainers[1].to_checkpoint(resumed))


def test_layers_are_scanned_on_tpus(recipe_file: Path) -> None:
    recipe = load_recipe(TrainRecipe, recipe_file)
    assert setup.scans_layers(recipe, "tpu")
    assert not setup.scans_layers(recipe, "cpu")
    assert setup.scans_layers(load_recipe(TrainRecipe, recipe_file, ["model.scan_layers=true"]), "cpu")
    assert not setup.scans_layers(load_recipe(TrainRecipe, recipe_file, ["model.scan_layers=false"]), "tpu")
    muon = load_recipe(TrainRecipe, recipe_file, ["lora=null", "optimizer.name=muon"])
    assert not setup.scans_layers(muon, "tpu")


def test_muon_does_not_scan(recipe_file: Path) -> None:
    overrides = ["lora=null", "optimizer.name=muon", "model.scan_layers=true"]
    with pytest.raises(UserError, match=re.escape("model.scan_layers needs optimizer.name: adamw")):
        load_recipe(TrainRecipe, recipe_file, overrides)


DEVICES = """
import json, sys
import jax
import numpy as np
from support import tiny_training
from thinkprm_jax.data.batches import batches
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.kernels import Execution
from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.optimizer import make_optimizer
from thinkprm_jax.training.trainer import Trainer

config = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8,
    qkv_bias=True, tie_embeddings=False, initializer_range=0.2,
)
optimizer = make_optimizer(OptimizerConfig(learning_rate=0.01, eps=1e-3), 10)
dataset = tiny_training.RandomExamples([17, 3, 9, 12, 5, 16, 8, 2, 17, 4, 6, 11, 13, 7, 10] * 3, 64)

def run(sizes, scan):
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    execution = Execution(scan=scan, remat="layer")
    trainer = Trainer(config, optimizer, mesh, "float32", 2, execution=execution)
    stream = batches(dataset, [16], lambda bucket: 16)
    state, losses = trainer.init(0), []
    for _ in range(2):
        state, metrics = trainer.train_step(state, trainer.place(next(stream)[0]))
        losses.append(float(metrics["loss"]))
    return losses, trainer.to_checkpoint(state).params, trainer.compiles()

losses, expected, _ = run((1, 1, 1), False)
def difference(ours, theirs):
    return float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())

found = {}
for name in ("1x2x1", "2x1x2", "1x2x2"):
    there, params, compiles = run(tuple(map(int, name.split("x"))), True)
    found[name] = {
        "loss": difference(there, losses),
        "weight": max(difference(params[key], value) for key, value in expected.items()),
        "split": params["layers.2.mlp.up.kernel"].addressable_shards[0].data.shape,
        "compiles": compiles,
    }
print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_and_four_devices_train_as_one_without_a_loop() -> None:
    found = processes.answer(DEVICES, devices=4)
    assert {name: mesh["split"] for name, mesh in found.items()} == {
        "1x2x1": [16, 64],
        "2x1x2": [32, 32],
        "1x2x2": [16, 32],
    }
    for mesh in found.values():
        assert mesh["loss"] < 1e-5
        assert mesh["weight"] < 2e-5
        assert mesh["compiles"] == 1
