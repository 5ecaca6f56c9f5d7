"""New weights for a model that is loaded: from memory, or from whatever somebody saved them as."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from thinkprm_jax.checkpoint.files import ADAPTER_CONFIG, CONFIG, listed
from thinkprm_jax.checkpoint.huggingface import load_decoder, read_model_config
from thinkprm_jax.checkpoint.names import ignorable, stored_tensors
from thinkprm_jax.checkpoint.weights import BUNDLED, find_model
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.parameters import inputs_axis
from thinkprm_jax.model.quantization import SUFFIX, Quantization, quantize

Folder = str | Path


def read_weights(
    weights: Any, config: ModelConfig, current: Mapping[str, jax.Array], copy: bool = True
) -> list[jax.Array]:
    """Values for all parameters, on the devices, in the shardings and dtypes of those that are there.

    Args:
      weights: arrays by name (ours, or those of Hugging Face checkpoints), nested or with dots; an `nnx.State` or
        a module; or a folder: of Hugging Face, a run of ours, or what Orbax saved of one of the former.
      config: of the model. current: its parameters by dotted path; the result is in this order.
      copy: False: an array that is as it should be is taken as it is.
    Raises:
      UserError: a name is missing or unknown, a shape is another one, the folder cannot be read.
    """
    place = "the weights"
    if isinstance(weights, str | Path):
        place, weights, copy = str(weights), _read_folder(weights, config, current), False
    found = _by_name(weights, place)
    stored = {tensor.name: tensor for tensor in stored_tensors(config)}
    named: dict[str, tuple[Any, bool]] = {}
    unknown = []
    for name, value in found.items():
        if name in current:
            named[name] = value, False
        elif name in stored:
            named[stored[name].path] = value, stored[name].transposed
        elif not ignorable(name, config):
            unknown.append(name)
    quantized = {name.removesuffix(SUFFIX): name for name in current if name.endswith(SUFFIX)}
    made = {scale for name, scale in quantized.items() if name in named and _is_float(named[name][0])}
    missing = [name for name in current if name not in named and name not in made]
    shaped = [
        f"{name} {list(shape)} instead of {list(current[name].shape)}"
        for name, (value, transposed) in named.items()
        if (shape := tuple(np.shape(value))[:: -1 if transposed else 1]) != current[name].shape
    ]
    groups = (("missing", missing), ("unknown", unknown), ("wrong shape", shaped))
    if problems := [f"{title}: {listed(names)}" for title, names in groups if names]:
        raise UserError(f"{place} do not fit the model; {'; '.join(problems)}")
    for scale in made:
        name = scale.removesuffix(SUFFIX)
        named[name], named[scale] = _quantized(*named[name], inputs_axis(name))
    return [_placed(*named[name], like, copy) for name, like in current.items()]


def _is_float(value: Any) -> bool:
    return hasattr(value, "detach") or jnp.issubdtype(value.dtype, jnp.floating)


def _quantized(value: Any, transposed: bool, inputs: int) -> tuple[tuple[Any, bool], tuple[Any, bool]]:
    """A float matrix as whole numbers and scales, each with whether it is turned."""
    if isinstance(value, jax.Array):
        on_device = quantize(value, inputs ^ transposed)
        return (on_device[0], transposed), (on_device[1], False)
    whole, scale = quantize(_on_host(value), inputs ^ transposed)
    return (whole, transposed), (scale, False)


def _by_name(weights: Any, place: str) -> dict[str, Any]:
    """Arrays by dotted name."""
    if isinstance(weights, nnx.Module):
        weights = nnx.state(weights, nnx.Param)
    found: dict[str, Any] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, nnx.Variable):
            value = value.get_raw_value()
        if isinstance(value, Mapping | nnx.State):
            for name, inner in value.items():
                walk(inner, (*path, str(name)))
        elif isinstance(value, list | tuple) and not np.isscalar(value):
            for number, inner in enumerate(value):
                walk(inner, (*path, str(number)))
        elif value is not None:
            if not hasattr(value, "shape") or not hasattr(value, "dtype"):
                raise UserError(f"{place}: {'.'.join(path) or 'this'} is {type(value).__name__}, no array")
            found[".".join(path)] = value

    walk(weights, ())
    # In what Orbax saved of a module's state, each variable is an object with its value.
    return {name.removesuffix(".value"): value for name, value in found.items()}


def _placed(value: Any, transposed: bool, like: jax.Array, copy: bool) -> jax.Array:
    """The value with the dtype, and where, ``like`` is; in memory of its own if ``copy``."""
    if not isinstance(value, jax.Array):
        value = _on_host(value)
    if transposed:
        value = value.T
    fits = isinstance(value, jax.Array) and value.dtype == like.dtype and value.sharding == like.sharding
    if fits and value.committed == like.committed:
        return jnp.copy(value) if copy else value
    if isinstance(value, jax.Array) and like.committed:
        return jax.device_put(value.astype(like.dtype), like.sharding, may_alias=not copy)
    host = np.array(value, like.dtype)  # of the default device, where nobody said another: so is ``like``
    return jax.device_put(host, like.sharding) if like.committed else jnp.array(host)


def _on_host(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # of torch, which numpy does not know in bfloat16
        value = value.detach().float().cpu().numpy()
    return np.asarray(value)


def _read_folder(place: Folder, config: ModelConfig, current: Mapping[str, jax.Array]) -> Any:
    path = Path(place).expanduser()
    names = (CONFIG, ADAPTER_CONFIG)
    if str(place) in BUNDLED or path.is_file() or any((path / name).is_file() for name in names):
        files = find_model(place)
        theirs = read_model_config(files)
        if theirs.num_layers != config.num_layers:
            raise UserError(f"{place} has {theirs.num_layers} layers, the model has {config.num_layers}")
        quantization: Quantization | None = "int8" if any(name.endswith(SUFFIX) for name in current) else None
        dtype = current["norm.scale"].dtype
        return load_decoder(files, theirs, dtype, _mesh_of(current.values()), quantization)
    if not path.is_dir():
        raise UserError(f"{place}: no such folder")
    if (path / "checkpoints").is_dir() or (path.name == "checkpoints"):
        from thinkprm_jax.checkpoint.saved_weights import SavedWeights

        with SavedWeights(path if path.name == "checkpoints" else path / "checkpoints") as saved:
            return {name: saved.read(name) for name in saved.shapes}
    return _read_orbax(path)


def _mesh_of(values: Any) -> jax.sharding.Mesh | None:
    for value in values:
        sharding = value.sharding
        if isinstance(sharding, jax.sharding.NamedSharding) and isinstance(sharding.mesh, jax.sharding.Mesh):
            return sharding.mesh
    return None


def _read_orbax(path: Path) -> Any:
    """A tree that Orbax saved, on the host."""
    from orbax.checkpoint import v1 as ocp

    from thinkprm_jax.checkpoint.orbax_messages import quiet, reason

    quiet()
    try:
        shapes = ocp.metadata(path.absolute()).metadata
        wanted = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)
        return ocp.load(path.absolute(), wanted)
    except Exception as error:  # Orbax and TensorStore raise what they like
        raise UserError(f"{path} holds no weights that can be read: {reason(error)}") from error
