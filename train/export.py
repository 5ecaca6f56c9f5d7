"""`thinkprm export RUN OUT`: a checkpoint of a training run as a Hugging Face folder.

transformers, vLLM, SGLang and :func:`thinkprm_jax.load_model` read it. A run may be exported while it trains, and
on another machine than it trains on: weights go from the checkpoint to the new files one tensor at a time, through
the host alone. A LoRA run is merged into its base on the way, or written as an adapter in peft's layout.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import Location, is_local
from thinkprm_jax.views.places import place_option

DESCRIPTION = "Writes a checkpoint of a training run as a Hugging Face folder, which score --model takes."


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm export", description=DESCRIPTION)
    parser.add_argument("run", type=place_option, help="the run's folder: the output of its recipe")
    parser.add_argument("out", type=place_option, help="the folder to write")
    parser.add_argument("--step", type=int, help="of the checkpoint; default: the last one")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights (float32)"
    )
    parser.add_argument(
        "--adapter", action="store_true", help="the LoRA adapter alone, for peft and vLLM; default: merged weights"
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="then upload the folder to this Hugging Face repository (new: private)",
    )
    arguments = parser.parse_args(argv)
    step = export(arguments.run, arguments.out, arguments.step, arguments.dtype, arguments.adapter, arguments.push)
    print(f"step {step} of {arguments.run} is in {arguments.out}")
    if arguments.push:
        print(f"and at https://huggingface.co/{arguments.push}")
    return 0


def export(
    run: Location,
    out: Location,
    step: int | None = None,
    dtype: str = "float32",
    adapter: bool = False,
    push: str | None = None,
) -> int:
    """Returns the exported step. Raises `UserError` for whatever is in the way; then nothing is left behind."""
    import numpy as np

    from thinkprm_jax.checkpoint.files import check_target
    from thinkprm_jax.checkpoint.huggingface import float_dtype
    from thinkprm_jax.data.discriminative import PUBLISHED
    from thinkprm_jax.export.hub import check_access, upload
    from thinkprm_jax.export.run import TrainingRun, write_run
    from thinkprm_jax.model.lora import LoraSpec
    from thinkprm_jax.progress import ProgressBar
    from thinkprm_jax.recipe import dump_recipe, load_recipe, to_dict
    from thinkprm_jax.training.config import TrainRecipe

    out = out.expanduser()
    check_target(out)
    if push is not None and not is_local(out):
        raise UserError(f"--push uploads a folder of this machine, and {out} is none")

    # The run
    if not (run / "recipe.yaml").exists() or not (run / "checkpoints").exists():
        raise UserError(f"{run} is no training run: it lacks recipe.yaml or checkpoints")
    recipe = load_recipe(TrainRecipe, run / "recipe.yaml")
    if adapter and recipe.lora is None:
        raise UserError(f"--adapter: {run} has no LoRA adapter, all of its weights were trained")
    lora = recipe.lora
    found = TrainingRun(
        folder=run,
        recipe=dump_recipe(recipe),
        settings=to_dict(recipe),
        base=recipe.model.pretrained,
        lora=None if lora is None else LoraSpec(lora.rank, lora.alpha, lora.targets, lora.dropout),
        kind=PUBLISHED.to_config() if recipe.task == "discriminative" else None,
    )

    # The folder
    if push is not None:
        check_access(push)
    with ProgressBar(None) as progress:
        progress.phase(f"writing {out}")
        try:
            step = write_run(found, out, step, np.dtype(float_dtype(dtype)), adapter, name=push)
        except OSError as error:
            raise UserError(f"{out}: {error.strerror or error}") from None
        if push is not None:
            assert isinstance(out, Path)  # refused above
            progress.phase(f"uploading to {push}")
            upload(out, push, f"step {step}")
    return step


if __name__ == "__main__":
    program.start(main, "thinkprm export")
