"""A continued run insists on the same frozen base, bit for bit, and sees that without gathering it."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support import tiny_model, tiny_training
from thinkprm_jax.checkpoint.training_state import CheckpointStore, weights_fingerprint
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.trainer import Trainer

LORA = {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "down_proj"]}


def one_device() -> jax.sharding.Mesh:
    return make_mesh(devices=jax.devices()[:1])


def test_a_fingerprint_sees_a_single_bit_and_a_changed_order() -> None:
    mesh = one_device()
    rng = np.random.default_rng(0)
    weights = {"a": jnp.asarray(rng.normal(size=(7, 5)), jnp.bfloat16), "b": jnp.asarray(rng.normal(size=9))}
    known = weights_fingerprint(weights, mesh)
    assert weights_fingerprint(dict(reversed(weights.items())), mesh) == known
    bits = np.array(weights["a"]).view(np.uint16)
    bits[6, 4] ^= 1
    changed = [
        {**weights, "a": jnp.asarray(bits.view(weights["a"].dtype))},
        {**weights, "b": weights["b"][::-1]},  # the same numbers elsewhere
        {**weights, "a": weights["a"].reshape(5, 7)},
        {**weights, "b": weights["b"].astype(jnp.bfloat16)},
        {"a": weights["a"], "c": weights["b"]},
    ]
    assert len({known, *(weights_fingerprint(other, mesh) for other in changed)}) == 1 + len(changed)


@pytest.fixture
def recipe(tmp_path: Path) -> TrainRecipe:
    base = tiny_model.save_folder(tmp_path / "base")
    model = {"pretrained": str(base), "dtype": "float32"}
    optimizer = {"learning_rate": 0.01}
    path = tiny_training.write_recipe(tmp_path, model=model, lora=LORA, optimizer=optimizer)
    return load_recipe(TrainRecipe, path)


def parts(recipe: TrainRecipe) -> tuple[Trainer, object]:
    config, tokenizer = setup.read_model(recipe.model)
    dataset = setup.make_dataset(recipe.data.train, recipe, tokenizer, "training data")
    return setup.make_trainer(recipe, config, 10, one_device()), dataset


def test_adapters_go_on_with_their_base_only(recipe: TrainRecipe, tmp_path: Path) -> None:
    trainer, dataset = parts(recipe)
    with CheckpointStore(tmp_path / "checkpoints") as store:
        state, _, record = setup.start_or_resume(recipe, trainer, dataset, store)
        _, arrays, position = next(setup.training_batches(recipe, dataset, trainer))
        state, _ = trainer.train_step(state, arrays)
        store.save(1, state.saved(), {**record, "data": position})
        store.wait()
        held = sum(file.stat().st_size for file in (tmp_path / "checkpoints").rglob("*") if file.is_file())
        assert held < (tmp_path / "base" / "model.safetensors").stat().st_size  # no base in it

        resumed, _, again = setup.start_or_resume(recipe, trainer, dataset, store)
        assert again == record
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            other = dict(jax.tree_util.tree_leaves_with_path(resumed))[path]
            np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other), err_msg=str(path))

        tiny_model.save_folder(tmp_path / "base", seed=1)
        with pytest.raises(UserError, match=r"step 1 in .* holds adapters of another model than"):
            setup.start_or_resume(recipe, trainer, dataset, store)
