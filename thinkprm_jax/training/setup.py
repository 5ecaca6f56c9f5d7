"""From the recipe to the parts of a run: folder, model, data, trainer, state."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from thinkprm_jax.arithmetic.source import ArithmeticChains
from thinkprm_jax.arithmetic.task import PLAIN, make_solution
from thinkprm_jax.checkpoint.files import CONFIG, write_folder
from thinkprm_jax.checkpoint.huggingface import load_model, read_model_config, resolve_folder
from thinkprm_jax.checkpoint.places import check_store, has_checkpoint
from thinkprm_jax.checkpoint.training_state import CheckpointStore, weights_fingerprint
from thinkprm_jax.checkpoint.weights import find_model
from thinkprm_jax.data.batches import Batch, BatchState, Dataset, batches, plans
from thinkprm_jax.data.chains import ChainReport, LabelledChain, iterate_chains
from thinkprm_jax.data.discriminative import DiscriminativeDataset, ListedSteps, StepEncoder, prm800k_solutions
from thinkprm_jax.data.mixture import MixedDataset
from thinkprm_jax.data.solutions import (
    DrawnSolutions,
    ListedSolutions,
    SolutionDataset,
    SolutionSource,
    read_solved_problems,
)
from thinkprm_jax.data.sources import ChainDataset, ChainSource, SpooledChains
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.export.base import keep_base
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.kernels import Execution, choose_attention
from thinkprm_jax.model.lora import LoraSpec
from thinkprm_jax.recipe import dump_recipe, to_dict
from thinkprm_jax.records.files import write_json
from thinkprm_jax.records.run_folder import claim_folder
from thinkprm_jax.storage import Location, location
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.training.config import FREE_FIELDS, DataSource, ModelSource, PartSource, TrainRecipe
from thinkprm_jax.training.flops import TERA, known_device, step_flops
from thinkprm_jax.training.goodput import Goodput
from thinkprm_jax.training.loop import Placed
from thinkprm_jax.training.loss import Objective
from thinkprm_jax.training.metrics import Rates
from thinkprm_jax.training.optimizer import make_optimizer, make_schedule
from thinkprm_jax.training.trackers import Trackers, open_trackers
from thinkprm_jax.training.trainer import Params, Trainer, TrainState, abstract_parameters, parameters_of

Row = TypeVar("Row")

# Folder


def open_run(recipe: TrainRecipe) -> Location:
    """The run's folder, with the resolved recipe in it. Before its first checkpoint a run may change its recipe.

    All processes call it; process 0 writes.

    Raises:
      UserError: the folder holds a run of another recipe (names the fields); it cannot be written, or is in a
        store that cannot hold checkpoints; another process was given another recipe, or does not see process 0's
        folder.
    """
    folder = location(recipe.output)
    check_store(folder)
    _check_same_recipe(recipe)
    if jax.process_index() == 0:
        claim_folder(folder, recipe, has_checkpoint(folder), FREE_FIELDS)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the run's folder")
        if not (folder / "recipe.yaml").exists():
            raise UserError(
                f"output {folder}: process 0 has made it, this process does not see it; all need one disk"
            )
    return folder


def _check_same_recipe(recipe: TrainRecipe) -> None:
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(dump_recipe(recipe).encode()).digest()
    everybody = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = [number for number, found in enumerate(everybody) if bytes(found) != bytes(everybody[0])]
    if others:
        raise UserError(f"process {', '.join(map(str, others))} was given another recipe than process 0")


def save_model_files(folder: Location, config: ModelConfig, tokenizer: Tokenizer, pretrained: str | None) -> None:
    """config.json, the tokenizer and what is to be known of the base, for export. Process 0 writes."""
    if jax.process_index():
        return
    model = folder / "model"

    def fill(written: Path) -> None:
        write_json(written / CONFIG, config.to_hf())
        tokenizer.save(written)

    try:
        write_folder(model, fill)
        if pretrained is not None:
            keep_base(folder, pretrained)
    except Exception as error:  # a full disk, for one; the tokenizers package raises nothing more special
        raise UserError(f"{model}: {getattr(error, 'strerror', None) or error}") from error


def open_log(folder: Location, recipe: TrainRecipe, record: dict[str, Any], done: int) -> Trackers:
    """The run's trackers; those of process 0, the others' do nothing."""
    try:
        return open_trackers(folder, recipe.tracking, record["recipe"], done, first=jax.process_index() == 0)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error


# Model


def read_model(source: ModelSource) -> tuple[ModelConfig, Tokenizer]:
    """The model's shapes and its tokenizer; no weights."""
    if source.pretrained is not None:
        files = find_model(source.pretrained)  # it may be an adapter on a base
        config = read_model_config(files)
        folder = files.tokenizer_folder if source.tokenizer is None else resolve_folder(source.tokenizer)
        tokenizer = Tokenizer.load(folder)
        if tokenizer.vocab_size > config.vocab_size:
            raise UserError(
                f"the tokenizer has ids up to {tokenizer.vocab_size - 1}, the model of {source.pretrained} "
                f"only {config.vocab_size} embeddings"
            )
        return config, tokenizer
    assert source.scratch is not None
    assert source.tokenizer is not None
    tokenizer = Tokenizer.load(resolve_folder(source.tokenizer))
    sizes = source.scratch
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads,
        head_dim=sizes.head_dim or sizes.hidden_size // sizes.num_heads,
        model_type=sizes.model_type,
        rope_theta=sizes.rope_theta,
        rms_norm_eps=sizes.rms_norm_eps,
        qkv_bias=sizes.model_type == "qwen2",
        qk_norm=sizes.model_type == "qwen3",
        tie_embeddings=sizes.tie_embeddings,
        max_position_embeddings=sizes.max_position_embeddings,
        initializer_range=sizes.initializer_range,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    return config, tokenizer


def load_weights(recipe: TrainRecipe, mesh: Mesh) -> Params:
    """The pretrained weights by path, in the dtype in which they are held, straight onto the mesh: each process
    reads the pieces of its own devices, and none ever holds the whole."""
    source = recipe.model
    assert source.pretrained is not None
    dtype = "float32" if recipe.lora is None else source.frozen_dtype
    return parameters_of(load_model(source.pretrained, dtype=dtype, mesh=mesh)[0])


def parameter_count(config: ModelConfig) -> int:
    return sum(math.prod(shape.shape) for shape in abstract_parameters(config).values())


# Trainer


def make_run_mesh(recipe: TrainRecipe) -> Mesh:
    """The recipe's mesh over all devices of all processes.

    Raises:
      UserError: it does not fit the devices.
    """
    return make_mesh(recipe.mesh.data, recipe.mesh.fsdp, recipe.mesh.tensor)


def filling(recipe: TrainRecipe, trainer: Trainer) -> str:
    """In words, which buckets' batches get empty rows on this mesh; "" where none does."""
    filled = {
        bucket: (rows, trainer.filled_rows(rows))
        for bucket, rows in ((bucket, recipe.data.rows_of(bucket)) for bucket in recipe.data.buckets)
        if trainer.filled_rows(rows) > rows
    }
    if not filled:
        return ""
    listed = ", ".join(f"{bucket} ({rows} to {more})" for bucket, (rows, more) in filled.items())
    return f"so that the devices divide them, batches get empty rows, by bucket: {listed}"


def choose_execution(recipe: TrainRecipe, config: ModelConfig, platform: str) -> tuple[Execution, str]:
    """How the model is computed on ``platform``, and in words which attention and why: one for all buckets."""
    model = recipe.model
    chosen = [
        choose_attention(model.attention, config, model.dtype, bucket, platform) for bucket in recipe.data.buckets
    ]
    kernel, why = next((choice for choice in chosen if choice[0] == "xla"), chosen[-1])
    scan = scans_layers(recipe, platform)
    execution = Execution(attention=kernel, remat=model.remat, scan=scan)
    return execution, f"attention {kernel} ({why}){', layers scanned' if scan else ''}"


def scans_layers(recipe: TrainRecipe, platform: str) -> bool:
    """Whether the layers are one loop. By default where it is known to help: on TPUs, whose compiler takes minutes
    for what it unrolls. A CPU would copy each layer's weights out of the stack, and muon stacks them by itself."""
    asked = recipe.model.scan_layers
    return asked if asked is not None else platform == "tpu" and recipe.optimizer.name == "adamw"


def lora_spec(recipe: TrainRecipe) -> LoraSpec | None:
    lora = recipe.lora
    return None if lora is None else LoraSpec(lora.rank, lora.alpha, lora.targets, lora.dropout)


def make_trainer(
    recipe: TrainRecipe,
    config: ModelConfig,
    steps: int,
    mesh: Mesh,
    execution: Execution | None = None,
    choices: tuple[int, ...] | None = None,
) -> Trainer:
    """steps: of the whole run, for the schedule. choices: see :class:`~thinkprm_jax.training.loss.Objective`."""
    return Trainer(
        config,
        make_optimizer(recipe.optimizer, steps),
        mesh,
        dtype=jnp.dtype(recipe.model.dtype),
        micro_batches=recipe.micro_batches,
        learning_rate=make_schedule(recipe.optimizer, recipe.optimizer.learning_rate, steps),
        objective=Objective(choices, recipe.loss.chunk),
        lora=lora_spec(recipe),
        frozen_dtype=jnp.dtype(recipe.model.frozen_dtype),
        execution=execution,
        seed=recipe.seed,
    )


def make_rates(recipe: TrainRecipe, trainer: Trainer, goodput: Goodput | None = None) -> Rates:
    """With MFU where the peak of the devices is known or given."""
    given = recipe.tracking.peak_tflops
    known = known_device(trainer.mesh.devices.flat[0].device_kind)
    peak = given * TERA if given is not None else None if known is None else known.peak
    choices = trainer.objective.choices
    flops = step_flops(trainer.config, trainer.lora, None if choices is None else len(choices))
    return Rates(flops, None if peak is None else peak * trainer.mesh.size, goodput)


# Data


def label_choices(recipe: TrainRecipe, tokenizer: Tokenizer) -> tuple[int, ...] | None:
    """The ids between which the loss chooses: a discriminative verifier's labels; None: the whole vocabulary."""
    return StepEncoder(tokenizer).marks.choices if recipe.task == "discriminative" else None


def make_dataset(
    source: DataSource, recipe: TrainRecipe, tokenizer: Tokenizer, name: str, late: bool = False
) -> Dataset:
    """The examples of a source, or of a mixture of them. ``late``: what chains say is read when their turn comes,
    beside the steps, and not before the first one."""
    if source.mixture is None:
        return _make_part(source, recipe, tokenizer, name, late)
    parts = [
        _make_part(part, recipe, tokenizer, f"{name}, part {number} of the mixture", late)
        for number, part in enumerate(source.mixture, start=1)
    ]
    # Every index of the synthetic task is a fresh draw.
    shuffle = [recipe.data.shuffle and part.arithmetic is None for part in source.mixture]
    return MixedDataset(parts, [part.weight for part in source.mixture], recipe.seed, shuffle)


def _make_part(source: PartSource, recipe: TrainRecipe, tokenizer: Tokenizer, name: str, late: bool) -> Dataset:
    longest = recipe.data.buckets[-1]
    report = ChainReport(name)
    if source.prm800k is not None:
        solutions = ListedSteps(_first(prm800k_solutions(source.prm800k, report), source.limit, source.prm800k))
        return DiscriminativeDataset(len(solutions), solutions, StepEncoder(tokenizer), longest, name, report)
    if recipe.task == "solver":
        solution, size = _solutions(source)
        return SolutionDataset(size, solution, tokenizer, longest, recipe.system_prompt, name, report)
    chain, size = _chains(source, report, late and recipe.task == "generative")
    if recipe.task == "discriminative":
        return DiscriminativeDataset(size, chain, StepEncoder(tokenizer), longest, name, report)
    return ChainDataset(size, chain, tokenizer, longest, recipe.loss.verdict_weight, name, report)


def _chains(source: PartSource, report: ChainReport, late: bool = False) -> tuple[ChainSource, int]:
    """Chains by index, and how many there are; ``report`` counts the rows of a file that are left out."""
    if source.arithmetic is not None:
        arithmetic = source.arithmetic
        form = None if arithmetic.form == PLAIN else arithmetic.form
        return ArithmeticChains(arithmetic.seed, arithmetic.split, arithmetic.start, form), arithmetic.examples
    assert source.chains is not None
    late = late and source.limit is None  # which of them count is known when they have been read
    rows = iterate_chains(source.chains, report=report, verdicts=not late)
    chains = SpooledChains(rows, source.limit, unchecked=late)
    _check_limit(len(chains), source.limit, source.chains)
    return chains, len(chains)


def _first(rows: Sequence[Row], limit: int | None, name: str) -> list[Row]:
    """The first ``limit`` rows; UserError where there are fewer: less data must not pass for more."""
    _check_limit(len(rows), limit, name)
    return list(rows)[:limit]


def _check_limit(size: int, limit: int | None, name: str) -> None:
    if limit is not None and size < limit:
        raise UserError(f"{name}: has {size:,} rows that can be used, limit asks for {limit:,}")


def _solutions(source: PartSource) -> tuple[SolutionSource, int]:
    """Solved problems by index, and how many there are."""
    if source.arithmetic is not None:
        arithmetic = source.arithmetic
        draw = functools.partial(make_solution, arithmetic.seed, split=arithmetic.split)
        arguments = ["arithmetic", arithmetic.seed, arithmetic.split]
        return DrawnSolutions(draw, arguments, arithmetic.start), arithmetic.examples
    assert source.solutions is not None
    solutions = ListedSolutions(_first(read_solved_problems(source.solutions), source.limit, source.solutions))
    return solutions, len(solutions)


def held_out_chains(recipe: TrainRecipe) -> list[LabelledChain]:
    """The solutions that the model judges by itself while it trains: the first ones of data.evaluation."""
    assert recipe.data.evaluation is not None
    assert recipe.verdicts is not None
    chain, size = _chains(recipe.data.evaluation, ChainReport("evaluation data"))
    return [chain(index) for index in range(min(size, recipe.verdicts.examples))]


def _contents(recipe: TrainRecipe) -> dict[str, Any]:
    """The arguments of :func:`~thinkprm_jax.data.batches.batches` that say what stands in a batch."""
    data = recipe.data
    return {
        "buckets": data.buckets,
        "rows_of": data.rows_of,
        "packing": data.packing,
        "examples": data.examples,
    }


def _shapes(recipe: TrainRecipe, trainer: Trainer) -> dict[str, Any]:
    """Those, and how it is laid out over the devices."""
    return {**_contents(recipe), "filled_rows": trainer.filled_rows, "local_rows": trainer.rows_wanted}


def _order(recipe: TrainRecipe) -> dict[str, Any]:
    """Those that say in which order the training data comes."""
    shuffle = recipe.data.shuffle and recipe.data.train.mixture is None  # which shuffles each of its parts
    return {"seed": recipe.seed, "shuffle": shuffle, "epochs": recipe.epochs}


def count_steps(recipe: TrainRecipe, dataset: Dataset) -> int:
    """The steps of the run; with ``epochs``, by planning its batches once."""
    if recipe.steps is not None:
        return recipe.steps
    steps = sum(1 for _ in plans(dataset, **_order(recipe), **_contents(recipe)))
    if not steps:
        raise UserError("the training data: no example fits into a bucket")
    return steps


def training_batches(
    recipe: TrainRecipe, dataset: Dataset, trainer: Trainer, state: BatchState | None = None
) -> Iterator[Placed]:
    """The stream of batches from ``state`` on, on the mesh, each with the position after it. None: from the
    beginning, where all that is left out is what the file's rows lack."""
    if state is None:
        state = BatchState(left_out=dataset.unusable)
    stream = batches(dataset, state=state, **_order(recipe), **_shapes(recipe, trainer))
    return ((batch, trainer.place(batch), position) for batch, position in stream)


def evaluation_batches(recipe: TrainRecipe, tokenizer: Tokenizer, trainer: Trainer) -> list[Batch]:
    """The held-out set, prepared once."""
    if recipe.data.evaluation is None:
        return []
    dataset = make_dataset(recipe.data.evaluation, recipe, tokenizer, "evaluation data")
    stream = batches(dataset, shuffle=False, epochs=1, **_shapes(recipe, trainer))
    prepared = [batch for batch, _ in stream]
    if not prepared:
        raise UserError("the evaluation data: no example fits into a bucket")
    return prepared


# State


def start_or_resume(
    recipe: TrainRecipe, trainer: Trainer, dataset: Dataset, store: CheckpointStore
) -> tuple[TrainState, BatchState | None, dict[str, Any]]:
    """Where the run stands: its state, its position in the data, and what else its checkpoints record.

    Raises:
      UserError: the last checkpoint cannot be read, or was made on other data or another base model.
    """
    record = {
        "recipe": to_dict(recipe),
        "data_fingerprint": dataset.fingerprint,
        "training_examples": len(dataset),
    }
    if store.latest_step is None:
        if recipe.model.pretrained is None:
            state = trainer.init(recipe.seed)
        else:
            weights = load_weights(recipe, trainer.mesh)
            record |= _base_record(weights, trainer)
            state = trainer.start_from(weights, recipe.seed, donate=True)
        return state, None, record
    saved_state, saved = store.restore(trainer.abstract_state())
    state = trainer.from_checkpoint(saved_state)
    place = f"the checkpoint of step {store.latest_step} in {recipe.output}"
    if saved.get("data_fingerprint") != record["data_fingerprint"]:
        raise UserError(f"{place} was made on other data than data.train holds now; choose another output")
    record |= {name: saved[name] for name in ("goodput",) if name in saved}
    weights = {} if trainer.lora is None else load_weights(recipe, trainer.mesh)
    record |= _base_record(weights, trainer)
    if saved.get("base_fingerprint") != record.get("base_fingerprint"):
        raise UserError(f"{place} holds adapters of another model than {recipe.model.pretrained} is now")
    state = trainer.with_frozen(state, weights)
    return state, BatchState.from_json(saved["data"]), record


def _base_record(weights: Params, trainer: Trainer) -> dict[str, str]:
    """What adapters belong to: the weights that they stand beside, as they were loaded."""
    if trainer.lora is None:
        return {}
    base = {name: weights[name] for name in trainer.frozen_names}
    return {"base_fingerprint": weights_fingerprint(base, trainer.mesh)}
