"""The training step: pure functions over an explicit state, jitted over a mesh.

The model object is split once into its structure and a flat dict of parameters (dotted path -> array, the paths of
:func:`thinkprm_jax.model.decoder.parameter_axes`). Everything after that, shardings, decay masks and checkpoints,
goes by those names. State arrays are born on their mesh devices and donated from step to step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thinkprm_jax.mesh import axis_counts, named_sharding
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder, parameter_axes
from thinkprm_jax.training.loss import Sums, token_sums

Params = dict[str, jax.Array]
Arrays = Mapping[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """params: float32 master weights by path. opt_state: of the optax chain. step: int32 scalar, steps done."""

    params: Params
    opt_state: Any
    step: jax.Array


class Trainer:
    """Compiled functions for one model, optimizer and mesh; holds no arrays."""

    def __init__(
        self,
        config: ModelConfig,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        dtype: Any = jnp.bfloat16,
        micro_batches: int = 1,
        learning_rate: Callable[[jax.Array], jax.Array] | None = None,
    ) -> None:
        self.config, self.mesh, self.optimizer = config, mesh, optimizer
        self._learning_rate = learning_rate
        self._micro_batches = micro_batches
        self._build = lambda rngs: Decoder(config, rngs=rngs, param_dtype=jnp.float32, dtype=dtype)
        abstract = nnx.eval_shape(lambda: self._build(nnx.Rngs(0)))
        self._graph, variables = nnx.split(abstract, nnx.Param)
        self._names = parameter_names(variables)
        self._tree = jax.tree.structure(variables)
        self.shardings = self._state_shardings()
        batch = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None))
        self._batch_sharding = batch
        replicated = NamedSharding(mesh, PartitionSpec())
        self._train = jax.jit(self._train_step, donate_argnums=0, out_shardings=(self.shardings, replicated))
        self._evaluate = jax.jit(self._evaluate_step, out_shardings=replicated)

    # State

    def init(self, seed: int) -> TrainState:
        """Random weights, a pure function of ``seed``, the same on every mesh."""

        def create() -> TrainState:
            return self._start(flatten(nnx.state(self._build(nnx.Rngs(seed)), nnx.Param)))

        return jax.jit(create, out_shardings=self.shardings)()

    def start_from(self, params: Params) -> TrainState:
        """A new state around given weights (any floating dtype)."""
        params = {name: jnp.asarray(params[name], jnp.float32) for name in self._names}
        return jax.jit(self._start, out_shardings=self.shardings)(params)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state, for restoring."""
        shapes = jax.eval_shape(self._start, self._abstract_params())
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.shardings,
        )

    def model(self, params: Arrays) -> Decoder:
        """The module around ``params``."""
        variables = jax.tree.unflatten(self._tree, [params[name] for name in self._names])
        return nnx.merge(self._graph, variables)

    # Steps

    def place(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Host rows onto the mesh, split over data and fsdp."""
        return {name: jax.device_put(value, self._batch_sharding) for name, value in arrays.items()}

    def train_step(self, state: TrainState, batch: Arrays) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update; ``state`` is donated. Metrics are scalars on the device."""
        return self._train(state, batch)

    def evaluate_step(self, params: Params, batch: Arrays) -> Sums:
        return self._evaluate(params, batch)

    def compiles(self) -> int:
        """How many shapes the training step has been compiled for."""
        return self._train._cache_size()

    def loss_and_gradients(self, params: Params, batch: Arrays) -> tuple[Sums, Params]:
        """Sums over the whole batch and the gradients of loss / weight; jittable."""
        total = jnp.maximum(jnp.sum(batch["weights"]), 1e-6)

        def part(params: Params, rows: Arrays) -> tuple[jax.Array, Sums]:
            sums = self._sums(params, rows)
            return sums.loss / total, sums

        gradients_of = jax.grad(part, has_aux=True)
        if self._micro_batches == 1:
            gradients, sums = gradients_of(params, batch)
            return sums, gradients
        parts = {name: value.reshape(self._micro_batches, -1, value.shape[1]) for name, value in batch.items()}

        def add(carry: tuple[Sums, Params], rows: Arrays) -> tuple[tuple[Sums, Params], None]:
            gradients, sums = gradients_of(params, rows)
            return jax.tree.map(jnp.add, carry, (sums, gradients)), None

        zero = (Sums(*[jnp.zeros((), jnp.float32)] * len(Sums._fields)), jax.tree.map(jnp.zeros_like, params))
        (sums, gradients), _ = jax.lax.scan(add, zero, parts)
        return sums, gradients

    def _train_step(self, state: TrainState, batch: Arrays) -> tuple[TrainState, dict[str, jax.Array]]:
        sums, gradients = self.loss_and_gradients(state.params, batch)
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
        metrics = {
            "loss": sums.loss / jnp.maximum(sums.weight, 1e-6),
            "gradient_norm": optax.tree.norm(gradients),
        }
        if self._learning_rate is not None:
            metrics["learning_rate"] = self._learning_rate(state.step)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1), metrics

    def _evaluate_step(self, params: Params, batch: Arrays) -> Sums:
        return self._sums(params, batch)

    def _sums(self, params: Params, batch: Arrays) -> Sums:
        logits = self.model(params)(batch["tokens"])
        return token_sums(logits, batch["targets"], batch["weights"])

    # Shapes and shardings

    def _start(self, params: Params) -> TrainState:
        return TrainState(params, self.optimizer.init(params), jnp.zeros((), jnp.int32))

    def _abstract_params(self) -> Params:
        return jax.eval_shape(lambda: flatten(nnx.state(self._build(nnx.Rngs(0)), nnx.Param)))

    def _state_shardings(self) -> TrainState:
        axes, counts = parameter_axes(self.config), axis_counts(self.config)
        by_name = {name: named_sharding(self.mesh, axes[name], counts) for name in self._names}
        params = self._abstract_params()
        state = jax.eval_shape(self._start, params)
        replicated = NamedSharding(self.mesh, PartitionSpec())

        def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
            """An optimizer array that has a parameter's name and shape is split like it; others are copied."""
            name = next((str(key.key) for key in reversed(path) if getattr(key, "key", None) in by_name), None)
            return by_name[name] if name is not None and leaf.shape == params[name].shape else replicated

        return jax.tree_util.tree_map_with_path(of, state)


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
