"""`thinkprm export RUN OUT`: the last checkpoint of a training run as a Hugging Face folder.

transformers, vLLM, SGLang and :func:`thinkprm_jax.load_model` read it. A run may be exported while it trains, and
on another number of devices than it trains on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from thinkprm_jax import program
from thinkprm_jax.errors import UserError

DESCRIPTION = "Writes a checkpoint of a training run as a Hugging Face folder, which score --model takes."


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm export", description=DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run's folder: the output of its recipe")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--step", type=int, help="of the checkpoint; default: the last one")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights (float32)"
    )
    arguments = parser.parse_args(argv)
    step = export(arguments.run, arguments.out, arguments.step, arguments.dtype)
    print(f"step {step} of {arguments.run} is in {arguments.out}")
    return 0


def export(run: Path, out: Path, step: int | None = None, dtype: str = "float32") -> int:
    from thinkprm_jax.checkpoint.huggingface import read_config, save_model
    from thinkprm_jax.checkpoint.training_state import CheckpointStore
    from thinkprm_jax.mesh import make_mesh
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.text.tokenizer import Tokenizer
    from thinkprm_jax.training.config import TrainRecipe
    from thinkprm_jax.training.optimizer import make_optimizer
    from thinkprm_jax.training.trainer import Trainer

    if not (run / "recipe.yaml").exists() or not (run / "checkpoints").exists():
        raise UserError(f"{run} is no training run: it lacks recipe.yaml or checkpoints")
    recipe = load_recipe(TrainRecipe, run / "recipe.yaml")
    config, tokenizer = read_config(run / "model"), Tokenizer.load(run / "model")
    optimizer = make_optimizer(recipe.optimizer, steps=1)  # the number of steps shapes no array
    trainer = Trainer(config, optimizer, make_mesh(fsdp=-1))  # what does not divide is copied
    with CheckpointStore(run / "checkpoints", recipe.checkpoint.keep, read_only=True) as store:
        step = store.latest_step if step is None else step
        if step is None:
            raise UserError(f"{run} has no checkpoint yet")
        if step not in store.steps:
            listed = ", ".join(map(str, store.steps)) or "none"
            raise UserError(f"{run} has no checkpoint of step {step}; it has: {listed}")
        state, _ = store.restore(trainer.abstract_state(), step)
    try:
        save_model(trainer.model(state.params), tokenizer, out, dtype=dtype)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}") from None
    return step


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm export"))
