"""`thinkprm train RECIPE [field=value ...]`: fine-tunes a verifier on verification chains.

The run lives in the recipe's ``output`` folder: recipe.yaml (resolved), model/ (config.json and tokenizer),
checkpoints/, metrics.jsonl. Started again with the same recipe, it goes on from its last checkpoint, exactly as if
it had never stopped. `thinkprm export` makes a Hugging Face folder of it.
"""

from __future__ import annotations

import argparse
import logging
import os.path
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from thinkprm_jax import program

if TYPE_CHECKING:
    from thinkprm_jax.distributed.mesh import Processes
    from thinkprm_jax.progress import TrainingProgress
    from thinkprm_jax.training.config import TrainRecipe

DESCRIPTION = (
    "Fine-tunes a verifier on verification chains. The run lives in the recipe's output folder; started again "
    "with the same recipe, it goes on from its last checkpoint. docs/training.md lists the fields of a recipe."
)

_STARTED = time.time()
# What Linux has where there is a GPU or a TPU.
_ACCELERATORS = ("/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm train", description=DESCRIPTION)
    parser.add_argument("recipe", help="a YAML file, such as configs/train/mini_verifier.yaml")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="such as optimizer.learning_rate=1e-4")
    parser.add_argument(
        "--status-if-stopped",
        type=int,
        default=0,
        metavar="N",
        help="exit status where a signal ends the run before its last step, for launchers (default: 0)",
    )
    launch = parser.add_argument_group(
        "several processes",
        "where neither JAX_* variables, SLURM nor a TPU slice say it: the same command in each",
    )
    launch.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    launch.add_argument("--processes", type=int, metavar="N", help="how many there are")
    launch.add_argument("--process", type=int, metavar="I", help="which this one is, from 0")
    planning = parser.add_argument_group(
        "forecast", "what each device would hold; nothing is allocated or trained"
    )
    planning.add_argument("--plan", action="store_true", help="print it; exit status 1 where it does not fit")
    planning.add_argument("--mesh", metavar="fsdp=4,tensor=4", help="in place of the recipe's")
    planning.add_argument("--device-memory", metavar="16GB", help="of one device (default: a known device's)")
    planning.add_argument("--topology", metavar="v5e:4x4", help="compile for these TPUs; needs libtpu, no TPU")
    planning.add_argument("--exact", action="store_true", help="compile all layers, not two shallow models")
    from thinkprm_jax.recipe import plain_overrides

    own = ("--status-if-stopped", "--coordinator", "--processes", "--mesh", "--device-memory", "--topology")
    given = plain_overrides(sys.argv[1:] if argv is None else argv, own)
    arguments = parser.parse_intermixed_args(given)  # fields and options in any order
    if arguments.plan:
        return plan(arguments)
    for name in ("mesh", "device_memory", "topology", "exact"):
        if getattr(arguments, name):
            parser.error(f"--{name.replace('_', '-')} belongs to --plan; a run takes its mesh from the recipe")
    processes = (arguments.coordinator, arguments.processes, arguments.process)
    return 0 if train(arguments.recipe, arguments.overrides, processes) else arguments.status_if_stopped


def plan(arguments: argparse.Namespace) -> int:
    from thinkprm_jax.distributed.mesh_option import parse_mesh
    from thinkprm_jax.progress import ProgressBar
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.training import plan
    from thinkprm_jax.training.config import TrainRecipe

    recipe = load_recipe(TrainRecipe, arguments.recipe, arguments.overrides)
    mesh = parse_mesh(arguments.mesh) if arguments.mesh else None
    memory = plan.parse_memory(arguments.device_memory) if arguments.device_memory else None
    with ProgressBar(None) as progress:
        progress.phase("planning")
        return plan.main(recipe, mesh, memory, arguments.topology, arguments.exact)


def train(
    recipe_file: str,
    overrides: Sequence[str] = (),
    launch: tuple[str | None, int | None, int | None] = (None, None, None),
) -> bool:
    """The run, in each of its processes; the first one speaks and writes for all.

    Returns: whether the last step was reached; else a signal came, and the run can go on.
    """
    from thinkprm_jax.distributed.mesh import start_processes
    from thinkprm_jax.progress import TrainingProgress
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.runtime import keep_memory
    from thinkprm_jax.training.config import TrainRecipe

    recipe = load_recipe(TrainRecipe, recipe_file, overrides)
    if not any(map(os.path.exists, _ACCELERATORS)):  # else a step's temporaries are there
        keep_memory()
    with (
        start_processes(*launch) as processes,  # before anything touches a device
        TrainingProgress(quiet=not processes.first) as progress,
    ):
        return train_together(recipe, processes, progress)


def train_together(recipe: TrainRecipe, processes: Processes, progress: TrainingProgress) -> bool:
    from thinkprm_jax.checkpoint.training_state import CheckpointStore
    from thinkprm_jax.data.batches import Prefetcher
    from thinkprm_jax.evaluation.callback import verdict_callback
    from thinkprm_jax.runtime import enable_compilation_cache
    from thinkprm_jax.training import setup
    from thinkprm_jax.training.goodput import Goodput
    from thinkprm_jax.training.loop import fit
    from thinkprm_jax.training.trackers import check_packages

    # The folder
    if not processes.first:
        logging.getLogger("thinkprm_jax").setLevel(logging.ERROR)
    check_packages(recipe.tracking)
    enable_compilation_cache()
    folder = setup.open_run(recipe)

    # Model and data
    progress.phase("reading model and data")
    config, tokenizer = setup.read_model(recipe.model)
    setup.save_model_files(folder, config, tokenizer, recipe.model.pretrained)
    dataset = setup.make_dataset(recipe.data.train, recipe, tokenizer, "training data", late=True)
    steps = setup.count_steps(recipe, dataset)

    # Mesh and compiled steps
    mesh = setup.make_run_mesh(recipe)
    execution, attention = setup.choose_execution(recipe, config, mesh.devices.flat[0].platform)
    choices = setup.label_choices(recipe, tokenizer)
    trainer = setup.make_trainer(recipe, config, steps, mesh, execution, choices)

    # What it is evaluated on
    held_out = setup.evaluation_batches(recipe, tokenizer, trainer)
    on_verdicts = None
    if recipe.verdicts is not None:
        on_verdicts = verdict_callback(
            lambda state: trainer.model(state.params, state.frozen),
            trainer.abstract_state(frozen=True),
            tokenizer,
            setup.held_out_chains(recipe),
            max_length=recipe.verdicts.max_length,
            slots=recipe.verdicts.slots,
            mesh=mesh,
        )

    with CheckpointStore(folder / "checkpoints", recipe.checkpoint.keep, recipe.checkpoint.keep_every) as store:
        # Where the run stands
        progress.phase("loading weights")
        state, position, record = setup.start_or_resume(recipe, trainer, dataset, store)
        done = int(state.step)
        rates = setup.make_rates(recipe, trainer, Goodput(_STARTED, record.get("goodput")))

        # The loop
        with (
            closing(setup.open_log(folder, recipe, record, done)) as log,
            closing(
                Prefetcher(setup.training_batches(recipe, dataset, trainer, position), recipe.data.prefetch)
            ) as stream,
        ):
            progress.begin(steps, done)
            going_on = f", going on from step {done}" if done else ""
            progress.say(f"{folder}: {setup.parameter_count(config):,} parameters, {steps} steps{going_on}")
            sizes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
            kind = mesh.devices.flat[0].device_kind
            progress.say(f"{processes.description}, mesh {sizes} ({kind}), {attention}")
            if filling := setup.filling(recipe, trainer):
                progress.say(filling)
            if rates.peak is None:
                progress.say(
                    "no mfu in the metrics: the peak of these devices is unknown; tracking.peak_tflops gives it"
                )
            _, complete = fit(
                trainer, state, stream, steps, recipe, record, store, log, progress, rates, held_out, on_verdicts
            )
    return complete


if __name__ == "__main__":
    program.start(main, "thinkprm train")
