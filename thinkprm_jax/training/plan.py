"""What a training run would hold on each device, found out without allocating it (`thinkprm train --plan`).

Weights, gradients, optimizer state and batch follow from shapes and shardings. Activations and temporaries are
what the compiler reports for the very step that would run, compiled from shapes alone, on devices that need not
exist:

    TPU topology   by the TPU's compiler (package libtpu, no TPU needed)
    GPUs here      by their compiler, where this machine has as many as the mesh
    else           by XLA for CPUs, on pretended devices. It is told to keep what is computed twice apart, to
                   reduce gradients one by one and to gather weights where they are used, as compilers of
                   accelerators do. What remains are other fusions, no reduce-scatter, and no fused attention.

Layers are alike, so where they are not one loop, two shallow models of full width are compiled, and their
difference is the price of a layer; the whole model takes minutes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from thinkprm_jax.checkpoint.huggingface import read_model_config
from thinkprm_jax.checkpoint.weights import BUNDLED, find_model
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.kernels import Execution
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import LoraConfig, ModelSource, TrainRecipe
from thinkprm_jax.training.flops import known_device
from thinkprm_jax.training.trainer import Trainer
from thinkprm_jax.user_files import read_json

SHAPES = Path(__file__).resolve().parents[1] / "bundled" / "shapes"
DEPTHS = (4, 8)  # layers of the models that stand for deeper ones; in shallower ones the head decides
_UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
# XLA for CPUs orders operations for parallel threads, merges recomputed values with those that were to be
# forgotten, keeps all gradients for one collective, and gathers all weights ahead of a loop over micro-batches.
# Compilers of accelerators do none of this, and a run on CPUs not the first two (see trainer.step_options).
_CPU_OPTIONS = {
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_disable_hlo_passes": "cse_barrier_expander,cpu-all-reduce-combiner,while-loop-invariant-code-motion",
}


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device. frozen: weights that do not train, beside LoRA. temporaries: activations, logits,
    gathered weights, and all else that lives within a step, at its worst moment."""

    weights: int
    optimizer: int
    frozen: int
    batch: int
    gradients: int
    temporaries: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in dataclasses.fields(self))


@dataclass(frozen=True)
class TrainingPlan:
    """The forecast for one recipe and mesh.

    model, shapes: its name and where its shapes come from. parameters, trained: how many there are, and how many
    of them train. rows, length, parts: of the batch, of a row, and into how many parts the rows are cut.
    compiler: who reported the temporaries, on_tpu: whether a TPU's; depths: for models of so many layers, None:
    for the whole one. changes: what would make the total smaller, and the total then.
    """

    model: str
    shapes: str
    parameters: int
    trained: int
    mesh: dict[str, int]
    rows: int
    length: int
    parts: int
    remat: str
    attention: str
    compiler: str
    on_tpu: bool
    depths: tuple[int, ...] | None
    memory: DeviceMemory
    device_memory: int | None = None
    changes: tuple[tuple[str, int], ...] = ()

    @property
    def fits(self) -> bool | None:
        return None if self.device_memory is None else self.memory.total <= self.device_memory

    def to_json(self) -> dict[str, Any]:
        memory = {**dataclasses.asdict(self.memory), "total": self.memory.total}
        return {**dataclasses.asdict(self), "memory": memory, "changes": dict(self.changes), "fits": self.fits}

    def table(self) -> str:
        """For people: lines of at most 100 characters, the memory in gigabytes (10^9 bytes)."""
        sizes = " x ".join(f"{name} {size}" for name, size in self.mesh.items())
        devices = math.prod(self.mesh.values())
        lines = [
            f"{self.model} ({self.shapes}): {self.parameters:,} parameters, {self.trained:,} train",
            f"mesh {sizes} = {devices} device{'s' * (devices > 1)}; batch {self.rows} rows x {self.length} tokens"
            + (f" in {self.parts} parts" if self.parts > 1 else "")
            + f"; remat {self.remat}; {self.attention}",
            "",
            f"{'on each device':32}{'GB':>9}",
        ]
        memory = self.memory
        for name, size in (
            ("weights, float32", memory.weights),
            ("optimizer state", memory.optimizer),
            ("frozen weights", memory.frozen),
            ("batch", memory.batch),
            ("gradients, float32", memory.gradients),
            ("activations and temporaries", memory.temporaries),
            ("all", memory.total),
        ):
            if size or name != "frozen weights":
                lines.append(f"{name:32}{size / 1e9:9.2f}")
        lines += ["", *self._verdict(), "", f"temporaries: {self.compiler}, {self._depths()}"]
        return "\n".join(lines)

    def _verdict(self) -> list[str]:
        if self.device_memory is None:
            return ["--device-memory 16GB would say whether this fits"]
        room = self.device_memory - self.memory.total
        fits = f"fits into {self.device_memory / 1e9:.2f} GB, {room / 1e9:.2f} GB to spare"
        lacks = f"does NOT fit into {self.device_memory / 1e9:.2f} GB: {-room / 1e9:.2f} GB too much"
        changes = [f"  with {name:36} {size / 1e9:8.2f} GB" for name, size in self.changes]
        return [fits if room >= 0 else lacks, *changes]

    def _depths(self) -> str:
        if self.depths is None:
            return "of the whole step"
        said = f"of {' and '.join(map(str, self.depths))} layers, extended by the difference"
        # Measured: 15.4 GB for 12.2 (7B, v5e:4x4); with XLA for CPUs 5.81 for 5.83.
        return f"{said}, which TPUs' compiler does not keep to: see --exact" if self.on_tpu else said


def main(
    recipe: TrainRecipe,
    mesh_sizes: Mapping[str, int] | None = None,
    device_memory: int | None = None,
    topology: str | None = None,
    exact: bool = False,
) -> int:
    """Prints the plan. Returns the exit status: 0, or 1 where it is known not to fit."""
    print("compiling for the plan: a minute or more", file=sys.stderr, flush=True)
    plan = make_plan(recipe, mesh_sizes, device_memory, topology, exact)
    print(plan.table())
    return int(plan.fits is False)


def make_plan(
    recipe: TrainRecipe,
    mesh_sizes: Mapping[str, int] | None = None,
    device_memory: int | None = None,
    topology: str | None = None,
    exact: bool = False,
) -> TrainingPlan:
    """The plan. Must run before JAX's backends start, unless they have devices enough.

    Args:
      mesh_sizes: in place of the recipe's. An axis of -1 takes what a topology leaves, else it counts as 1.
      device_memory: bytes; default: those of a known device that the step is compiled for.
      topology: of TPUs, such as "v5e:4x4": compile for these.
      exact: compile the whole model, not two shallow ones.
    Raises:
      UserError: unknown shapes, a topology that libtpu does not know.
    """
    sizes = dict(mesh_sizes) if mesh_sizes else dataclasses.asdict(recipe.mesh)
    target = _find_target(sizes, topology)
    config, shapes = model_shapes(recipe.model)
    if device_memory is None and target.kind is not None:
        known = known_device(target.kind)
        device_memory = None if known is None else int(known.memory)
    depths = None if exact else _shallow_depths(recipe, config, target)
    memory, attention = _measure(recipe, config, target, depths)
    trainer = _trainer(recipe, config, target)[0]
    rows = _rows(recipe, trainer)
    state = trainer.abstract_state(frozen=True)
    trained = sum(math.prod(leaf.shape) for leaf in state.params.values())
    plan = TrainingPlan(
        model=recipe.model.pretrained or "a new model",
        shapes=shapes,
        parameters=trained + sum(math.prod(leaf.shape) for leaf in state.frozen.values()),
        trained=trained,
        mesh=dict(target.mesh.shape),
        rows=rows,
        length=recipe.data.buckets[-1],
        parts=trainer.parts(rows),
        remat=recipe.model.remat,
        attention=attention,
        compiler=target.description,
        on_tpu=target.platform == "tpu",
        depths=depths,
        memory=memory,
        device_memory=device_memory,
    )
    if plan.fits is not False:
        return plan
    return dataclasses.replace(plan, changes=tuple(_try_changes(recipe, config, target)))


def parse_memory(text: str) -> int:
    """ "16GB" (10^9 bytes) or "15.75GiB" (2^30 bytes) -> bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise UserError(f"--device-memory {text}: give a number with a unit, such as 16GB or 15.75GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def model_shapes(source: ModelSource) -> tuple[ModelConfig, str]:
    """The shapes of the recipe's model and where they were found; no weights, no tokenizer of a pretrained one.

    Looked for on this machine first, then in the table of the package, then on the hub.
    """
    if source.pretrained is None:
        return setup.read_model(source)[0], "shapes of the recipe"
    name = source.pretrained
    written = SHAPES / f"{name.replace('/', '--')}.json"
    if name in BUNDLED or Path(name).expanduser().exists():
        return read_model_config(find_model(name)), "shapes of its config.json"
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(name, "config.json") if name.count("/") == 1 else None
    if isinstance(cached, str):
        return ModelConfig.from_hf(read_json(Path(cached)), cached), "shapes of its config.json"
    if written.is_file():
        return ModelConfig.from_hf(read_json(written), str(written)), "shapes as written down in this package"
    try:
        path = huggingface_hub.hf_hub_download(name, "config.json")
    except Exception as error:  # the hub raises a dozen kinds: no such repository, gated, offline, time-out
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        known = ", ".join(sorted(file.stem.replace("--", "/") for file in SHAPES.glob("*.json")))
        raise UserError(f"{name}: no config.json, here or on the hub ({reason}); known: {known}") from None
    return ModelConfig.from_hf(read_json(Path(path)), path), "shapes of its config.json"


# What is compiled for


@dataclass(frozen=True)
class _Target:
    """kind: jax.Device.device_kind; None: pretended devices."""

    mesh: Mesh
    platform: str
    kind: str | None
    description: str
    options: Mapping[str, Any] | None = None


def _find_target(sizes: Mapping[str, int], topology: str | None) -> _Target:
    if topology is not None:
        devices = _tpu_topology(topology)
        mesh = make_mesh(**sizes, devices=devices)
        kind = devices[0].device_kind
        return _Target(mesh, "tpu", kind, f"compiled for {kind} ({topology})")
    sizes = {name: 1 if size == -1 else size for name, size in sizes.items()}
    count = math.prod(sizes.values())
    devices, on_gpus = _devices(count)
    mesh = make_mesh(**sizes, devices=devices)
    if on_gpus:
        return _Target(mesh, devices[0].platform, devices[0].device_kind, f"compiled for {devices[0].device_kind}")
    description = "compiled for CPUs, an estimate for other devices"
    return _Target(mesh, "cpu", None, description, _CPU_OPTIONS)


def _devices(count: int) -> tuple[list[jax.Device], bool]:
    """So many devices: this machine's GPUs where there are enough, else pretended CPUs. TPUs are never started:
    those of a slice would wait for its other hosts, and a topology gives their compiler without them."""
    has_gpu = Path("/dev/nvidiactl").exists()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        jax.config.update("jax_num_cpu_devices", count)
        if not has_gpu:
            jax.config.update("jax_platforms", "cpu")
    except RuntimeError:
        pass  # the backends have started: they may have enough
    devices = jax.devices()
    if devices[0].platform != "cpu" and len(devices) >= count:
        return list(devices[:count]), True
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise RuntimeError(f"the plan needs {count} devices and JAX has started with {len(devices)}")
    return list(devices[:count]), False


def _tpu_topology(name: str) -> Sequence[jax.Device]:
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # outside Google's cloud nobody answers
    # JAX runs the two cores of a v4 chip as one device, which has all its memory, where libtpu describes two by
    # default. It describes a v5p chip as one, and those of v2, v3 and 7x as the two that JAX shows of them.
    cores = {"chip_config_name": "megacore"} if name.partition(":")[0].strip() == "v4" else {}
    try:
        return topologies.get_topology_desc(name, "tpu", **cores).devices
    except Exception as error:  # no libtpu, an unknown name, another process that uses libtpu
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f'topology {name}: {reason} (it is written like v5e:4x4, and needs pip install "thinkprm-jax[tpu]")'
        ) from None


# Measuring


def _measure(
    recipe: TrainRecipe, config: ModelConfig, target: _Target, depths: tuple[int, int] | None
) -> tuple[DeviceMemory, str]:
    """The memory of the whole model, and which attention it was compiled with."""
    trainer, attention = _trainer(recipe, config, target)
    if depths is None:
        temporary = _temporary_bytes(recipe, trainer, target)
    else:
        low, high = (
            _temporary_bytes(recipe, _trainer(recipe, _with_layers(config, depth), target)[0], target)
            for depth in depths
        )
        # A layer's gradients are all alive at the end of a step, whatever was largest in the shallow models.
        layer = _layer_bytes(trainer)
        slope = max((high - low) / (depths[1] - depths[0]), layer)
        temporary = round(high + slope * (config.num_layers - depths[1]))
    state = trainer.abstract_state(frozen=True)
    weights = _bytes(state.params)
    gradients = min(weights, temporary)  # float32 and split like the weights; the compiler counts them in
    bucket = recipe.data.buckets[-1]
    columns = 5 if recipe.data.packing else 3
    groups = target.mesh.shape["data"] * target.mesh.shape["fsdp"]
    memory = DeviceMemory(
        weights=weights,
        optimizer=_bytes(state.opt_state),
        frozen=_bytes(state.frozen),
        batch=4 * columns * _rows(recipe, trainer) * bucket // groups,
        gradients=gradients,
        temporaries=temporary - gradients,
    )
    return memory, attention


def _shallow_depths(recipe: TrainRecipe, config: ModelConfig, target: _Target) -> tuple[int, int] | None:
    """Of the shallow models; None: the whole one is compiled, where it is shallow itself, or where its layers are
    one loop, which compiles as fast as a shallow one."""
    whole = config.num_layers <= DEPTHS[1] or setup.scans_layers(recipe, target.platform)
    return None if whole else DEPTHS


def _rows(recipe: TrainRecipe, trainer: Trainer) -> int:
    """Of a batch of the longest bucket, with those that are empty on this mesh."""
    return trainer.filled_rows(recipe.data.rows_of(recipe.data.buckets[-1]))


def _bytes(tree: Any) -> int:
    """Of a tree of abstract arrays on one device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _layer_bytes(trainer: Trainer) -> int:
    """What trains in one layer, on one device."""
    params = trainer.abstract_state().params
    return _bytes({name: leaf for name, leaf in params.items() if name.startswith("layers.0.")})


def _with_layers(config: ModelConfig, layers: int) -> ModelConfig:
    return dataclasses.replace(config, num_layers=layers)


def _trainer(recipe: TrainRecipe, config: ModelConfig, target: _Target) -> tuple[Trainer, str]:
    try:
        execution, attention = setup.choose_execution(recipe, config, target.platform)
    except UserError:  # a kernel of the accelerator, and this is none
        scan = setup.scans_layers(recipe, target.platform)
        execution = Execution(attention="xla", remat=recipe.model.remat, scan=scan)
        attention = f"attention xla (in place of {recipe.model.attention}, which needs its own device)"
    choices = (0, 1) if recipe.task == "discriminative" else None  # which ids they are needs a tokenizer
    steps = recipe.steps or 1000  # of a schedule, which takes no memory
    return setup.make_trainer(recipe, config, steps, target.mesh, execution, choices), attention


def _temporary_bytes(recipe: TrainRecipe, trainer: Trainer, target: _Target) -> int:
    bucket = recipe.data.buckets[-1]
    lowered = trainer.lower(_rows(recipe, trainer), bucket, recipe.data.packing)
    stats = lowered.compile(compiler_options=dict(target.options or {})).memory_analysis()
    if stats is None:
        raise RuntimeError(f"the compiler of {target.platform} reports no memory")
    unshared = max(stats.output_size_in_bytes - stats.alias_size_in_bytes, 0)
    return int(stats.temp_size_in_bytes + unshared + stats.generated_code_size_in_bytes)


# What would help


def _try_changes(recipe: TrainRecipe, config: ModelConfig, target: _Target) -> list[tuple[str, int]]:
    """Changes of the recipe and the totals with them: each alone, then together."""
    rows = recipe.data.rows_of(recipe.data.buckets[-1])
    groups = target.mesh.shape["data"] * target.mesh.shape["fsdp"]
    finest = max(rows // groups, 1)
    frugal = dataclasses.replace(
        recipe, model=dataclasses.replace(recipe.model, remat="layer"), micro_batches=finest
    )
    candidates = [
        ("model.remat=layer", dataclasses.replace(recipe, model=frugal.model)),
        (f"micro_batches={finest}", dataclasses.replace(recipe, micro_batches=finest)),
        (f"both, remat=layer micro_batches={finest}", frugal),
    ]
    if recipe.lora is None and recipe.model.pretrained is not None and recipe.optimizer.name == "adamw":
        name = "lora.rank=32" if frugal == recipe else "these and lora.rank=32"
        candidates.append((name, dataclasses.replace(frugal, lora=LoraConfig())))
    spread = _Target(_all_fsdp(target.mesh), target.platform, target.kind, target.description, target.options)
    depths = _shallow_depths(recipe, config, target)
    found: list[tuple[str, TrainRecipe, int]] = []
    for name, changed in candidates:
        if changed != recipe and all(changed != seen for _, seen, _ in found):
            found.append((name, changed, _measure(changed, config, target, depths)[0].total))
    if spread.mesh.shape != target.mesh.shape:
        found.append((f"mesh fsdp={spread.mesh.size}", recipe, _measure(recipe, config, spread, depths)[0].total))
    return [(name, size) for name, _, size in found]


def _all_fsdp(mesh: Mesh) -> Mesh:
    """The same devices, with data made fsdp: weights are split instead of copied."""
    sizes = {"data": 1, "fsdp": mesh.shape["data"] * mesh.shape["fsdp"], "tensor": mesh.shape["tensor"]}
    return make_mesh(**sizes, devices=list(mesh.devices.flat))
