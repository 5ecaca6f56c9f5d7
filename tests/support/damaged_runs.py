"""The folder of a training run, and what goes on from its Orbax checkpoint or exports it."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import jax
import numpy as np
import optax

from support import tiny_run
from support.damage import Case
from thinkprm_jax.checkpoint.huggingface import read_config
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.export.run import TrainingRun, write_run
from thinkprm_jax.model.parameters import parameter_shapes
from thinkprm_jax.recipe import dump_recipe, load_recipe, to_dict
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.trainer import TrainState

STEP = tiny_run.STEPS[-1]


def make(folder: Path, base: Path) -> None:
    tiny_run.make_run(folder, base)
    for step in tiny_run.STEPS[:-1]:
        shutil.rmtree(folder / "checkpoints" / str(step))


def cases(folder: Path) -> list[Case]:
    """Of each file. Of those whose names are hashes, whose number depends on Orbax's threads, the least and the
    greatest: the same cases in every run."""
    checkpoint = folder / "checkpoints" / str(STEP)
    abstract = _abstract_state(folder)
    resume = functools.partial(read_checkpoint, abstract=abstract)
    found = []
    for parent in sorted({file.parent for file in checkpoint.rglob("*") if file.is_file()}):
        files = sorted((file for file in parent.iterdir() if file.is_file()), key=lambda file: file.name)
        named = [(file.name, file) for file in files]
        if parent.name == "d":
            sizes = sorted(files, key=lambda file: file.stat().st_size)
            named = [("least", sizes[0]), ("greatest", sizes[-1])]
        for name, file in named:
            where = f"{parent.relative_to(checkpoint)}/{name}"
            found.append(Case(f"checkpoint {where}", file, resume, folder))
            found.append(Case(f"export of {where}", file, export, folder))
    others = ("recipe.yaml", "base.json", "metrics.jsonl", "model/config.json")
    return found + [Case(f"export of {name}", folder / name, export, folder) for name in others]


def _abstract_state(run: Path) -> TrainState:
    """Of the state that a run of this configuration goes on with."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = {
        name: jax.ShapeDtypeStruct(shape, np.float32)
        for name, shape in parameter_shapes(read_config(run / "model")).items()
    }
    state = TrainState(shapes, jax.eval_shape(optax.adam(0.1).init, shapes), jax.ShapeDtypeStruct((), np.int32))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state)


def read_checkpoint(run: Path, abstract: TrainState) -> None:
    """As a run that goes on."""
    with CheckpointStore(run / "checkpoints", read_only=True) as store:
        if store.latest_step is not None:
            store.restore(abstract)


def export(run: Path) -> None:
    recipe = load_recipe(TrainRecipe, run / "recipe.yaml")
    found = TrainingRun(run, dump_recipe(recipe), to_dict(recipe), recipe.model.pretrained)
    write_run(found, run / "exported", None, np.dtype(np.float32))
