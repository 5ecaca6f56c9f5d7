"""Reading what a tiny training run has left, and comparing two of them."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from support import tiny_training
from thinkprm_jax.checkpoint.huggingface import read_config
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.trainer import Trainer, TrainState


def make_trainer(run: Path) -> Trainer:
    """The run's own, on one device of this process."""
    recipe = load_recipe(TrainRecipe, run / "recipe.yaml")
    assert recipe.steps is not None
    return setup.make_trainer(
        recipe, read_config(run / "model"), recipe.steps, make_mesh(devices=jax.devices()[:1])
    )


def restore(run: Path, step: int | None = None) -> tuple[TrainState, dict]:
    """A checkpoint (default: the last one) and its record."""
    with CheckpointStore(run / "checkpoints", read_only=True) as store:
        return store.restore(make_trainer(run).abstract_state(), step)


def losses(run: Path) -> list[tuple[int, float]]:
    """(step, training loss) of each line so far."""
    return [(line["step"], line["loss"]) for line in tiny_training.metrics(run) if "loss" in line]


def assert_equal_states(ours: TrainState, theirs: TrainState) -> None:
    """Bit for bit."""
    leaves, others = (dict(jax.tree_util.tree_leaves_with_path(state)) for state in (ours, theirs))
    assert leaves.keys() == others.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(others[path]), err_msg=str(path))


def assert_equal_runs(first: Path, second: Path, steps: int) -> None:
    """Bit for bit: weights, optimizer, position in the data, and the history of the loss."""
    (ours, our_record), (theirs, their_record) = restore(first), restore(second)
    assert_equal_states(ours, theirs)
    assert our_record["data"] == their_record["data"]
    assert losses(first) == losses(second)
    assert [step for step, _ in losses(first)] == list(range(1, steps + 1))
