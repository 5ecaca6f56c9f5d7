"""``thinkprm export RUN OUT``: the last checkpoint of a training run as a Hugging Face folder.

transformers, vLLM, SGLang and :func:`thinkprm_jax.load_model` read it. ``RUN`` is a recipe's ``output`` folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from thinkprm_jax import program
from thinkprm_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm export", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--step", type=int, help="of the checkpoint; default: the last one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    arguments = parser.parse_args(argv)
    step = export(arguments.run, arguments.out, arguments.step, arguments.dtype)
    print(f"step {step} of {arguments.run} is in {arguments.out}")
    return 0


def export(run: Path, out: Path, step: int | None = None, dtype: str = "float32") -> int:
    from thinkprm_jax.checkpoint.huggingface import read_config, save_model
    from thinkprm_jax.checkpoint.training_state import CheckpointStore
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.text.tokenizer import Tokenizer
    from thinkprm_jax.training import setup
    from thinkprm_jax.training.config import TrainRecipe

    if not (run / "recipe.yaml").exists() or not (run / "checkpoints").exists():
        raise UserError(f"{run} is no training run: it lacks recipe.yaml or checkpoints")
    recipe = load_recipe(TrainRecipe, run / "recipe.yaml")
    config, tokenizer = read_config(run / "model"), Tokenizer.load(run / "model")
    trainer = setup.make_trainer(recipe, config, steps=1)  # the number of steps shapes no array
    with CheckpointStore(run / "checkpoints", recipe.checkpoint.keep, read_only=True) as store:
        step = store.latest_step if step is None else step
        if step not in store.steps:
            raise UserError(f"{run} has no checkpoint of step {step}; it has: {store.steps or 'none'}")
        state, _ = store.restore(trainer.abstract_state(), step)
    save_model(trainer.model(state.params), tokenizer, out, dtype=dtype)
    return step


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm export"))
