"""`thinkprm train RECIPE [field=value ...]`: fine-tunes a verifier on verification chains.

The run lives in the recipe's ``output`` folder: recipe.yaml (resolved), model/ (config.json and tokenizer),
checkpoints/, metrics.jsonl. Started again with the same recipe, it goes on from its last checkpoint, exactly as if
it had never stopped. `thinkprm export` makes a Hugging Face folder of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from thinkprm_jax import program

DESCRIPTION = (
    "Fine-tunes a verifier on verification chains. The run lives in the recipe's output folder; started again "
    "with the same recipe, it goes on from its last checkpoint. docs/training.md lists the fields of a recipe."
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm train", description=DESCRIPTION)
    parser.add_argument("recipe", help="a YAML file, such as configs/train/mini_verifier.yaml")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="such as optimizer.learning_rate=1e-4")
    arguments = parser.parse_args(argv)
    train(arguments.recipe, arguments.overrides)
    return 0


def train(recipe_file: str, overrides: Sequence[str] = ()) -> None:
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.training.config import TrainRecipe

    # Recipe and run folder
    recipe = load_recipe(TrainRecipe, recipe_file, overrides)

    from thinkprm_jax.checkpoint.training_state import CheckpointStore
    from thinkprm_jax.compilation import enable_compilation_cache
    from thinkprm_jax.data.batches import BatchState, Prefetcher
    from thinkprm_jax.recipe import to_dict
    from thinkprm_jax.training import setup
    from thinkprm_jax.training.loop import fit
    from thinkprm_jax.training.metrics import MetricsLog, ProgressReport

    enable_compilation_cache()
    folder = setup.open_run(recipe)

    # Model and data
    config, tokenizer, weights = setup.load_source(recipe.model)
    setup.save_model_files(folder, config, tokenizer)
    dataset = setup.make_dataset(recipe.data.train, recipe, tokenizer, "training data")
    held_out = setup.evaluation_batches(recipe, tokenizer)
    steps = setup.count_steps(recipe, dataset)
    trainer = setup.make_trainer(recipe, config, steps)

    # Where the run stands
    with CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep) as store:
        position = None
        if store.latest_step is None:
            state = setup.initial_state(trainer, recipe.seed, weights)
        else:
            state, saved = store.restore(trainer.abstract_state())
            position = BatchState.from_json(saved["data"])
        done = int(state.step)
        log = MetricsLog(folder / "metrics.jsonl", done)
        report = ProgressReport(steps, done)
        report.say(
            f"{folder}: {setup.parameter_count(config):,} parameters, {steps} steps"
            + (f", going on from step {done}" if done else "")
        )

        # The loop
        stream = Prefetcher(setup.training_batches(recipe, dataset, position), recipe.data.prefetch)
        try:
            fit(trainer, state, stream, steps, recipe, {"recipe": to_dict(recipe)}, store, log, report, held_out)
        finally:
            stream.close()
            report.close()
            log.close()


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm train"))
