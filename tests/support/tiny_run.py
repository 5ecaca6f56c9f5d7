"""The folder of a training run as `thinkprm train` leaves it, made without training: for tests of export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import yaml

from thinkprm_jax.checkpoint.huggingface import read_config
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.export.base import keep_base
from thinkprm_jax.model.lora import HF_TARGETS, LoraSpec, lora_shapes
from thinkprm_jax.model.parameters import parameter_shapes
from thinkprm_jax.recipe import dump_recipe, load_recipe, to_dict
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.trainer import TrainState

STEPS = (2, 4)
LORA = {"rank": 4, "alpha": 12.0, "targets": list(HF_TARGETS)}
SPEC = LoraSpec(4, 12.0)


def make_run(
    folder: Path, base: Path, lora: bool = False, pretrained: str | None = None, **changes: Any
) -> dict[int, dict[str, np.ndarray]]:
    """A run that began with the model in ``base`` and has a checkpoint, with other weights, at each of STEPS.

    pretrained: as the recipe names the base; default: its path. Returns the trained parameters by step and path.
    """
    source = folder.parent / f"{folder.name}.yaml"
    recipe: dict[str, Any] = {
        "output": str(folder),
        "steps": STEPS[-1],
        "model": {"pretrained": pretrained or str(base), "dtype": "float32"},
        "data": {"train": {"arithmetic": {"examples": 60}}, "buckets": [64], "rows": 2},
    }
    source.write_text(yaml.safe_dump({**recipe, **({"lora": LORA} if lora else {}), **changes}))
    parsed = load_recipe(TrainRecipe, source)
    config, tokenizer = read_config(base), Tokenizer.load(base)
    (folder / "model").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(parsed))
    (folder / "model" / "config.json").write_text(json.dumps(config.to_hf()))
    tokenizer.save(folder / "model")
    keep_base(folder, pretrained or base)
    lines = [{"step": 2, "loss": 0.75, "tokens_per_second": 10.0}, {"step": 2, "held_out_loss": 0.5}]
    lines += [{"step": 4, "loss": 0.25, "tokens_per_second": 10.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5, "lo')

    shapes = lora_shapes(config, SPEC) if lora else parameter_shapes(config)
    trained = {}
    with CheckpointStore(folder / "checkpoints") as store:
        for step in STEPS:
            rng = np.random.default_rng(step)
            trained[step] = {
                name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in sorted(shapes.items())
            }
            params = {name: jnp.asarray(value) for name, value in trained[step].items()}
            state = TrainState(params, optax.adam(0.1).init(params), jnp.int32(step))
            record = {"recipe": to_dict(parsed), "training_examples": 60}
            store.save(step, state, {**record, "data": {"epoch": 1, "left_out": 2}})
        store.wait()
    return trained
