"""The training step: pure functions over an explicit state, jitted over a mesh.

The model object is split once into its structure and a flat dict of parameters (dotted path -> array, the paths of
:func:`thinkprm_jax.model.parameters.parameter_axes`). All after that, shardings, decay masks and checkpoints, goes
by those names. State arrays are born on their mesh devices and donated from step to step.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from thinkprm_jax.data.batches import Batch
from thinkprm_jax.distributed.mesh import axis_counts, named_sharding
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder, use_weight_gradients
from thinkprm_jax.model.kernels import Execution, Remat
from thinkprm_jax.model.lora import LoraSpec, init_lora
from thinkprm_jax.model.parameters import parameter_axes
from thinkprm_jax.model.products import choose_weight_gradients
from thinkprm_jax.runtime import compile_count
from thinkprm_jax.training.loss import Head, Objective, Sums, choice_sums, token_sums
from thinkprm_jax.training.stacks import LayerStacks, stacked_name, stacked_names

Params = dict[str, jax.Array]
Shapes = dict[str, jax.ShapeDtypeStruct]
Arrays = Mapping[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """params: what trains, float32 by path. opt_state: of the optax chain. step: int32 scalar, steps done.
    frozen: weights that do not train (LoRA's base) by path; no part of a checkpoint. Where layers are scanned,
    paths and arrays are those of :class:`~thinkprm_jax.training.stacks.LayerStacks`."""

    params: Params
    opt_state: Any
    step: jax.Array
    frozen: Params = dataclasses.field(default_factory=dict)

    def saved(self) -> TrainState:
        """What a checkpoint holds."""
        return dataclasses.replace(self, frozen={})


class Trainer:
    """Compiled functions for one model, optimizer and mesh; holds no arrays."""

    def __init__(
        self,
        config: ModelConfig,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        dtype: DTypeLike = jnp.bfloat16,
        micro_batches: int = 1,
        learning_rate: Callable[[jax.Array], jax.Array] | None = None,
        *,
        objective: Objective | None = None,
        lora: LoraSpec | None = None,
        frozen_dtype: DTypeLike = jnp.bfloat16,
        execution: Execution | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
          dtype: of the inputs of matrix products. micro_batches: parts of a batch run one after the other.
          learning_rate: by step, for the metrics. objective: what the loss is taken over.
          lora: adapters train, everything else is frozen and held in ``frozen_dtype``.
          execution: attention kernel and rematerialisation; its mesh is set here. seed: of dropout.
        """
        self.config, self.mesh, self.optimizer, self.lora = config, mesh, optimizer, lora
        self.objective = Objective() if objective is None else objective
        self.execution = dataclasses.replace(execution or Execution(), mesh=mesh)
        self._learning_rate, self._micro_batches, self._seed = learning_rate, micro_batches, seed
        self._frozen_dtype = jnp.dtype(frozen_dtype)
        self._weight_gradients = choose_weight_gradients(dtype, mesh)
        unrolled = dataclasses.replace(self.execution, scan=False)
        self._build = lambda rngs: Decoder(config, rngs=rngs, dtype=dtype, lora=lora, execution=unrolled)
        self._module = self._step_module = _Module(self._build)  # what users get, and what the step computes
        self._stacks: LayerStacks | None = None
        if self.execution.scan:
            one = dataclasses.replace(config, num_layers=1)
            options: dict[str, Any] = {"dtype": dtype, "lora": lora, "execution": self.execution}
            self._step_module = _Module(lambda rngs: Decoder(one, rngs=rngs, **options))
            self._stacks = LayerStacks(config.num_layers, self._shardings_by_layer())
        self._names = self._module.names
        self._shapes = self._module.shapes if self._stacks is None else self._stacks.shapes(self._module.shapes)
        self._trains = [name for name in self._names if lora is None or name.endswith((".lora_a", ".lora_b"))]
        self._head_name = "embed.embedding" if config.tie_embeddings else "head.kernel"
        self._head = Head(
            config.tie_embeddings,
            jnp.dtype(dtype).name,
            self.objective.chunk_of(config.vocab_size),
            trains=self._head_name in self._trains,
            mesh=mesh if mesh.size > 1 else None,
        )
        self.shardings = self._state_shardings()
        self._groups = mesh.shape["data"] * mesh.shape["fsdp"]  # of devices, each with rows of its own
        self._batch_sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None))
        replicated = NamedSharding(mesh, PartitionSpec())
        self._train = jax.jit(
            self._train_step,
            donate_argnums=0,
            out_shardings=(self.shardings, replicated),
            compiler_options=step_options(mesh, self.execution.remat),
        )
        self._evaluate = jax.jit(self._evaluate_step, out_shardings=replicated)

    # State

    def init(self, seed: int) -> TrainState:
        """Random weights, a pure function of ``seed``, the same on every mesh."""
        if self.lora is not None:
            raise ValueError("adapters train on given weights: start_from")

        def create() -> TrainState:
            weights = flatten(nnx.state(self._build(nnx.Rngs(seed)), nnx.Param))
            return self._start(self._as_held(weights), {})

        return jax.jit(create, out_shardings=self.shardings)()

    def start_from(self, weights: Params, seed: int = 0, donate: bool = False) -> TrainState:
        """A new state around given weights of any floating dtype, by layer. ``seed``: of new adapters. ``donate``:
        where dtype and sharding are the state's already, the weights are taken over instead of copied."""
        names = self._names if self.lora is None else self.frozen_names
        base = self._as_held({name: weights[name] for name in names}, donate)

        def create(base: Params) -> TrainState:
            if self.lora is None:
                return self._start({name: value.astype(jnp.float32) for name, value in base.items()}, {})
            return self._start(self._as_held(init_lora(self.config, self.lora, seed)), self._freeze(base))

        return jax.jit(create, out_shardings=self.shardings, donate_argnums=0 if donate else ())(base)

    def with_frozen(self, state: TrainState, weights: Params) -> TrainState:
        """A restored state with its frozen weights by layer (donated); as it is where everything trains."""
        if self.lora is None:
            return state
        base = self._as_held({name: weights[name] for name in self.frozen_names}, donate=True)
        freeze = jax.jit(self._freeze, out_shardings=self.shardings.frozen, donate_argnums=0)
        return dataclasses.replace(state, frozen=freeze(base))

    def abstract_state(self, frozen: bool = False) -> TrainState:
        """Shapes, dtypes and shardings of the state; without the frozen weights as a checkpoint has it."""
        shapes = jax.eval_shape(self._start, self._abstract_params(), self._abstract_frozen())
        state = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.shardings,
        )
        return state if frozen else self.to_checkpoint(state)

    def to_checkpoint(self, state: TrainState) -> TrainState:
        """What a checkpoint holds, by layer: whether layers are scanned is no part of it."""
        return state.saved() if self._stacks is None else self._stacks.apart(state.saved())

    def from_checkpoint(self, saved: TrainState) -> TrainState:
        """The other way; the arrays of layers are given up where they are stacked."""
        return saved if self._stacks is None else self._stacks.together(saved, donate=True)

    def model(self, params: Arrays, frozen: Arrays | None = None) -> Decoder:
        """The module around ``params`` (and, with LoRA, the ``frozen`` rest; adapters stay beside their maps). Its
        layers are copies where the state's are stacked."""
        values = {**params, **(frozen or {})}
        return self._module.model(values if self._stacks is None else self._stacks.apart(values))

    def _as_held(self, weights: Params, donate: bool = False) -> Params:
        """Weights by layer as the state holds them."""
        return weights if self._stacks is None else self._stacks.together(weights, donate)

    # Steps

    def filled_rows(self, rows: int) -> int:
        """The rows of a batch with so many examples' rows on this mesh: every device has as many, the last ones
        may be empty. They weigh nothing, so a loss is the same on every mesh."""
        split = self._groups * min(self._micro_batches, -(-rows // self._groups))
        return -(-rows // split) * split

    def parts(self, rows: int) -> int:
        """Into how many parts a batch of :meth:`filled_rows` is cut: as many as there are micro-batches, unless a
        part would then leave some device without a row."""
        return min(self._micro_batches, rows // self._groups)

    def rows_wanted(self, rows: int) -> list[int] | None:
        """Of a batch of so many rows, those that this process's devices hold; None: all."""
        if jax.process_count() == 1:
            return None
        pieces = self._batch_sharding.addressable_devices_indices_map((rows, 1)).values()
        return sorted({row for piece in pieces if piece is not None for row in range(*piece[0].indices(rows))})

    def place(self, batch: Batch) -> Arrays:
        """Host rows onto the mesh, split over data and fsdp. Every process brings the rows of its own devices."""
        return {name: self._place(value, batch) for name, value in batch.arrays().items()}

    def _place(self, value: np.ndarray, batch: Batch) -> jax.Array:
        if batch.local_rows is None:
            return jax.device_put(value, self._batch_sharding)
        at = {row: place for place, row in enumerate(batch.local_rows)}

        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # the array has a shape
            return value[[at[row] for row in range(*index[0].indices(batch.rows))]]

        return jax.make_array_from_callback((batch.rows, *value.shape[1:]), self._batch_sharding, piece)

    def train_step(self, state: TrainState, batch: Arrays) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update; ``state`` is donated. Metrics are scalars on the device."""
        return self._train(state, batch)

    def evaluate_step(self, state: TrainState, batch: Arrays) -> Sums:
        return self._evaluate(state.params, state.frozen, batch)

    def compiles(self) -> int:
        """How many shapes the training step has been compiled for."""
        return compile_count(self._train)

    def lower(self, rows: int, length: int, packed: bool) -> jax.stages.Lowered:
        """The training step for batches of this shape, from shapes alone."""
        names = {"tokens": jnp.int32, "targets": jnp.int32, "weights": jnp.float32}
        names |= {"positions": jnp.int32, "segment_ids": jnp.int32} if packed else {}
        batch = {
            name: jax.ShapeDtypeStruct((rows, length), dtype, sharding=self._batch_sharding)
            for name, dtype in names.items()
        }
        return self._train.lower(self.abstract_state(frozen=True), batch)

    def loss_and_gradients(
        self, params: Params, batch: Arrays, frozen: Params | None = None, step: jax.Array | int = 0
    ) -> tuple[Sums, Params]:
        """Sums over the whole batch and the gradients of loss / weight; jittable. ``step`` chooses the dropout."""
        total = jnp.maximum(jnp.sum(batch["weights"]), 1e-6)
        key = jax.random.fold_in(jax.random.key(self._seed), step) if self.lora and self.lora.dropout else None

        def part(params: Params, rows: Arrays, number: jax.Array) -> tuple[jax.Array, Sums]:
            sums = self._sums(params, frozen or {}, rows, None if key is None else jax.random.fold_in(key, number))
            return sums.loss / total, sums

        gradients_of = jax.grad(part, has_aux=True)
        count = self.parts(len(batch["tokens"]))
        if count == 1:
            gradients, sums = gradients_of(params, batch, jnp.int32(0))
            return sums, gradients
        parts = {name: self._in_parts(value, count) for name, value in batch.items()}

        def add(carry: tuple[Sums, Params], part: tuple[Arrays, jax.Array]) -> tuple[tuple[Sums, Params], None]:
            gradients, sums = gradients_of(params, *part)
            return jax.tree.map(jnp.add, carry, (sums, gradients)), None

        zero = (Sums(*[jnp.zeros((), jnp.float32)] * len(Sums._fields)), jax.tree.map(jnp.zeros_like, params))
        (sums, gradients), _ = jax.lax.scan(add, zero, (parts, jnp.arange(count)))
        return sums, gradients

    def _in_parts(self, value: jax.Array, count: int) -> jax.Array:
        """[B, T] -> [count, B / count, T]: every n-th row, so that each device keeps its own."""
        value = value.reshape(-1, count, value.shape[1]).swapaxes(0, 1)
        return self.execution.constrain(value, None, "batch", None)

    def _train_step(self, state: TrainState, batch: Arrays) -> tuple[TrainState, dict[str, jax.Array]]:
        sums, gradients = self.loss_and_gradients(state.params, batch, state.frozen, state.step)
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
        metrics = {
            "loss": sums.loss / jnp.maximum(sums.weight, 1e-6),
            "gradient_norm": optax.tree.norm(gradients),
        }
        if self._learning_rate is not None:
            metrics["learning_rate"] = self._learning_rate(state.step)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1, state.frozen), metrics

    def _evaluate_step(self, params: Params, frozen: Params, batch: Arrays) -> Sums:
        return self._sums(params, frozen, batch)

    def _sums(self, params: Params, frozen: Params, batch: Arrays, dropout_key: jax.Array | None = None) -> Sums:
        model = self._step_model({**params, **frozen})
        use_weight_gradients(model, self._weight_gradients)
        x = model.hidden(batch["tokens"], batch.get("positions"), batch.get("segment_ids"), dropout_key)
        kernel = {**frozen, **params}[self._head_name]
        rows = batch["targets"], batch["weights"], batch.get("segment_ids")
        if self.objective.choices is None:
            return token_sums(self._head, x, kernel, *rows)
        chosen = jnp.asarray(self.objective.choices)
        kernels = kernel[chosen] if self.config.tie_embeddings else kernel[:, chosen].T
        return choice_sums(self.objective.choices, x, kernels, *rows)

    def _step_model(self, values: Arrays) -> Decoder:
        """The module that a step computes, around the arrays of a state."""
        if self._stacks is not None:  # its one layer holds the parameters of all
            values = {name: values[stacked_name(name)] for name in self._step_module.names}
        return self._step_module.model(values)

    # Shapes and shardings

    @property
    def frozen_names(self) -> list[str]:
        """Of the weights that do not train, by layer."""
        trains = set(self._trains)
        return [name for name in self._names if name not in trains]

    def _held_names(self, names: list[str]) -> list[str]:
        return names if self._stacks is None else stacked_names(names)

    def _start(self, params: Params, frozen: Params) -> TrainState:
        return TrainState(params, self.optimizer.init(params), jnp.zeros((), jnp.int32), frozen)

    def _freeze(self, weights: Params) -> Params:
        return {name: value.astype(self._frozen_dtype) for name, value in weights.items()}

    def _abstract_params(self) -> Shapes:
        names = self._held_names(self._trains)
        return {name: jax.ShapeDtypeStruct(self._shapes[name], jnp.float32) for name in names}

    def _abstract_frozen(self) -> Shapes:
        names = self._held_names(self.frozen_names)
        return {name: jax.ShapeDtypeStruct(self._shapes[name], self._frozen_dtype) for name in names}

    def _shardings_by_layer(self) -> dict[str, NamedSharding]:
        axes, counts = parameter_axes(self.config, self.lora), axis_counts(self.config)
        return {name: named_sharding(self.mesh, axes[name], counts) for name in self._module.names}

    def _state_shardings(self) -> TrainState:
        by_name = self._shardings_by_layer()
        if self._stacks is not None:
            by_name = {name: self._stacks.sharding(name) for name in stacked_names(self._names)}
        state = jax.eval_shape(self._start, self._abstract_params(), self._abstract_frozen())
        replicated = NamedSharding(self.mesh, PartitionSpec())

        def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
            """An optimizer array that has a parameter's name and shape is split like it; others are copied."""
            name = next((str(key.key) for key in reversed(path) if getattr(key, "key", None) in by_name), None)
            return by_name[name] if name is not None and leaf.shape == self._shapes[name] else replicated

        return jax.tree_util.tree_map_with_path(of, state)


class _Module:
    """A module's structure, and the names and shapes of its parameters in the order of its flattening."""

    def __init__(self, build: Callable[[nnx.Rngs], Decoder]) -> None:
        self._graph, variables = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param)
        self._tree = jax.tree.structure(variables)
        self.names = parameter_names(variables)
        self.shapes = {name: leaf.shape for name, leaf in flatten(variables).items()}

    def model(self, values: Arrays) -> Decoder:
        return nnx.merge(self._graph, jax.tree.unflatten(self._tree, [values[name] for name in self.names]))


def step_options(mesh: Mesh, remat: Remat) -> dict[str, str | bool] | None:
    """What XLA is told when it compiles a step for these devices.

    XLA for CPUs takes away the barriers around what is to be computed again before it looks for common
    subexpressions, and its usual scheduler starts repeated work early. Either keeps all that was to be forgotten:
    without these options ``layer`` and ``products`` take the memory of ``none``.

    XLA for TPUs multiplies by a large weight that fsdp splits piece by piece, as the pieces come round, and adds
    up the float32 products in memory, which takes several times as long as the product. With a threshold that no
    weight reaches it gathers the weight and multiplies once. A threshold in the user's own flags holds.
    """
    platform = mesh.devices.flat[0].platform
    if platform == "tpu" and mesh.shape["fsdp"] > 1 and mesh.shape["tensor"] == 1:
        own = "".join(os.environ.get(name, "") for name in ("LIBTPU_INIT_ARGS", "XLA_FLAGS"))
        return None if _WINDOWED_FROM in own else {_WINDOWED_FROM: "1000000"}
    if remat == "none" or platform != "cpu":
        return None
    return {
        "xla_disable_hlo_passes": "cse_barrier_expander",
        "xla_cpu_enable_concurrency_optimized_scheduler": False,
    }


_WINDOWED_FROM = "xla_jf_spmd_threshold_for_windowed_einsum_mib"


def parameter_names(variables: Any) -> list[str]:
    """Dotted paths of an nnx state's leaves, in the order of its flattening."""
    paths = jax.tree_util.tree_flatten_with_path(variables)[0]
    return [".".join(str(key.key) for key in path if hasattr(key, "key")) for path, _ in paths]


def flatten(variables: Any) -> Params:
    """An nnx state of parameters as a flat dict by dotted path."""
    return dict(zip(parameter_names(variables), jax.tree.leaves(variables), strict=True))


def parameters_of(model: Decoder) -> Params:
    """The parameters of a module by dotted path."""
    return flatten(nnx.state(model, nnx.Param))


def abstract_parameters(config: ModelConfig) -> Params:
    """Shapes and dtypes of the parameters by dotted path; nothing is allocated."""
    return jax.eval_shape(lambda: parameters_of(Decoder(config, rngs=nnx.Rngs(0))))
