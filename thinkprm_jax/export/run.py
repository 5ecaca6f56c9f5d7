"""From a training run to a Hugging Face folder: whole weights, merged weights, or the adapter alone."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinkprm_jax.checkpoint.adapter import adapter_of, write_adapter
from thinkprm_jax.checkpoint.files import CARD, MAX_SHARD_BYTES, listed, stored_as, write_folder, write_weights
from thinkprm_jax.checkpoint.huggingface import (
    read_config,
    write_configs,
)
from thinkprm_jax.checkpoint.names import StoredTensor, stored_tensors
from thinkprm_jax.checkpoint.pieces import reading_threads
from thinkprm_jax.checkpoint.safetensors_io import TensorToWrite
from thinkprm_jax.checkpoint.saved_weights import SavedWeights
from thinkprm_jax.checkpoint.weights import BUNDLED, Weights, find_model
from thinkprm_jax.data.discriminative import KEY
from thinkprm_jax.errors import UserError
from thinkprm_jax.export.base import check_base, portable_name, read_base
from thinkprm_jax.export.card import CardFacts, last_figures, model_card
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.lora import LoraSpec, lora_shapes
from thinkprm_jax.model.parameters import parameter_shapes
from thinkprm_jax.storage import Location, ObjectPath
from thinkprm_jax.storage.copies import local_copy
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

# R1-Distill's recommendation, which the released ThinkPRMs carry.
_SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}


@dataclass(frozen=True)
class TrainingRun:
    """What an export needs to know of a run.

    Attributes:
      folder: with model/, checkpoints/, metrics.jsonl and base.json.
      recipe: as YAML text. settings: the same as a dictionary.
      base: folder or id of the model that training began with. lora: its adapter, where only that was trained.
      kind: config.json's key ``thinkprm``, for a discriminative verifier.
    """

    folder: Location
    recipe: str
    settings: Mapping[str, Any]
    base: str | None = None
    lora: LoraSpec | None = None
    kind: Mapping[str, Any] | None = None


def write_run(
    run: TrainingRun,
    out: Location,
    step: int | None,
    dtype: np.dtype,
    adapter_only: bool = False,
    name: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> int:
    """Writes the checkpoint of ``step`` (default: the last one) to ``out``, whole or not at all; returns the step.

    Args:
      dtype: of the stored weights. adapter_only: peft's layout instead of merged weights (LoRA runs).
      name: what the model card calls the model. max_shard_bytes: above it several weight files with an index.
    Raises:
      UserError: no such checkpoint; it does not fit the run's config.json; the base is not what it was.
    """
    model = run.folder / "model"
    if isinstance(model, ObjectPath):
        model = local_copy(model)
    config, tokenizer = read_config(model), Tokenizer.load(model)
    if run.kind is not None:
        config = dataclasses.replace(config, extra={**config.extra, KEY: dict(run.kind)})
    with SavedWeights(run.folder / "checkpoints", step) as saved, reading_threads() as pool:
        _check_shapes(saved, config, run.lora)
        if adapter_only:
            write = _adapter_writer(run, saved, config, dtype)
        else:
            fetch = _whole(saved) if run.lora is None else _merged(run, saved, config, pool)
            weights = list(_to_write(config, fetch, dtype))
            write = functools.partial(write_weights, weights=weights, max_shard_bytes=max_shard_bytes)

        def fill(folder: Path) -> None:
            write(folder)
            tokenizer.save(folder)
            card = model_card(_facts(run, saved, config, dtype, adapter_only, name or out.resolve().name))
            (folder / CARD).write_text(card, encoding="utf-8")
            write_configs(folder, config, dtype, _generation_config(run))

        write_folder(out, fill)
        return saved.step


def _check_shapes(saved: SavedWeights, config: ModelConfig, lora: LoraSpec | None) -> None:
    """Raises `UserError` where the checkpoint does not hold what config.json and the recipe say."""
    expected = dict(parameter_shapes(config)) if lora is None else lora_shapes(config, lora)
    wrong = sorted(name for name in expected | saved.shapes if expected.get(name) != saved.shapes.get(name))
    if wrong:
        raise UserError(f"checkpoint {saved.path} does not fit the run's model and recipe: {listed(wrong)}")


Fetch = Callable[[StoredTensor], np.ndarray]  # a whole tensor, float32, in the orientation of a file


def _whole(saved: SavedWeights) -> Fetch:
    def fetch(tensor: StoredTensor) -> np.ndarray:
        array = saved.read(tensor.path)
        return array.T if tensor.transposed else array

    return fetch


def _merged(run: TrainingRun, saved: SavedWeights, config: ModelConfig, pool: ThreadPoolExecutor) -> Fetch:
    assert run.lora is not None
    assert run.base is not None
    files = find_model(run.base)
    check_base(run.folder, files, run.base)
    weights = Weights(files, config, parameter_shapes(config))
    weights.add(adapter_of({name: saved.read(name) for name in saved.shapes}, run.lora.scale))
    return functools.partial(weights.read_stored, pool=pool)


def _to_write(config: ModelConfig, fetch: Fetch, dtype: np.dtype) -> Iterator[TensorToWrite]:
    shapes = parameter_shapes(config)
    for tensor in stored_tensors(config):
        shape = shapes[tensor.path][:: -1 if tensor.transposed else 1]
        yield TensorToWrite(tensor.name, shape, dtype, functools.partial(_fetch_as, fetch, tensor, dtype))


def _fetch_as(fetch: Fetch, tensor: StoredTensor, dtype: np.dtype) -> np.ndarray:
    return stored_as(tensor.name, fetch(tensor), dtype)


def _adapter_writer(
    run: TrainingRun, saved: SavedWeights, config: ModelConfig, dtype: np.dtype
) -> Callable[[Path], None]:
    assert run.lora is not None
    assert run.base is not None
    if find_model(run.base).adapters:
        raise UserError(f"--adapter: the base {run.base} is an adapter itself, which peft cannot load; merge it")
    adapter = adapter_of({name: saved.read(name) for name in saved.shapes}, run.lora.scale)
    return functools.partial(
        write_adapter,
        adapter=adapter,
        spec=run.lora,
        config=config,
        base=portable_name(run.base),
        dtype=dtype,
    )


def _generation_config(run: TrainingRun) -> dict[str, Any]:
    """What the base says, and ours where it says nothing. Greedy bases stay greedy."""
    theirs = dict(read_base(run.folder).get("generation_config") or {})
    for key in ("transformers_version", "_from_model_config"):
        theirs.pop(key, None)
    return {**(_SAMPLING if theirs.get("do_sample", True) else {}), **theirs}


def _facts(
    run: TrainingRun, saved: SavedWeights, config: ModelConfig, dtype: np.dtype, adapter_only: bool, name: str
) -> CardFacts:
    base, position = read_base(run.folder), saved.record.get("data") or {}
    on_hub = run.base is not None and run.base not in BUNDLED and not Path(run.base).expanduser().exists()
    return CardFacts(
        name=name,
        step=saved.step,
        parameters=sum(math.prod(shape) for shape in parameter_shapes(config).values()),
        dtype=dtype.name,
        recipe=run.recipe,
        settings=run.settings,
        base=None if run.base is None else base.get("model", portable_name(run.base)),
        base_on_hub=on_hub,
        license=base.get("license"),
        adapter=adapter_only,
        kind=run.kind,
        examples=saved.record.get("training_examples"),
        epoch=position.get("epoch"),
        left_out=position.get("left_out"),
        figures=last_figures(run.folder / "metrics.jsonl", saved.step),
    )
