"""Decoders from and to Hugging Face folders (config.json, safetensors, tokenizer).

Loading streams: the model is built abstractly, then one parameter after another goes from its file to its
place on the mesh. A process reads the slices that its own devices hold and keeps one of them on the host.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.typing import DTypeLike

from thinkprm_jax.checkpoint.files import (
    CONFIG,
    GENERATION_CONFIG,
    INDEX_FILE,
    MAX_SHARD_BYTES,
    SINGLE_FILE,
    check_target,
    stored_as,
    write_folder,
    write_weights,
)
from thinkprm_jax.checkpoint.formats.gguf_config import read_gguf_config
from thinkprm_jax.checkpoint.formats.registry import find_format
from thinkprm_jax.checkpoint.names import HEAD, StoredTensor, stored_tensors
from thinkprm_jax.checkpoint.pieces import reading_threads
from thinkprm_jax.checkpoint.quantized import QuantizedTensor
from thinkprm_jax.checkpoint.safetensors_io import TensorToWrite
from thinkprm_jax.checkpoint.weights import (
    BUNDLED,
    ModelFiles,
    Weights,
    check_layers,
    find_model,
    holds_other_head,
    holds_weights,
    resolve_folder,
)
from thinkprm_jax.distributed.mesh import axis_counts, named_sharding
from thinkprm_jax.distributed.sharing import our_mesh
from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.fields import Fields
from thinkprm_jax.model.parameters import parameter_shapes, scale_axes
from thinkprm_jax.model.quantization import SUFFIX, Quantization
from thinkprm_jax.records.files import write_json
from thinkprm_jax.runtime import refuse_forked
from thinkprm_jax.storage import location
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.user_files import read_json

logger = logging.getLogger(__name__)

__all__ = [
    "BUNDLED",
    "INDEX_FILE",
    "SINGLE_FILE",
    "float_dtype",
    "load_decoder",
    "load_model",
    "read_config",
    "read_config_content",
    "read_generation_config",
    "read_model_config",
    "resolve_folder",
    "save_model",
    "write_configs",
]


def load_model(
    path_or_id: str | Path | ModelFiles,
    dtype: DTypeLike = "float32",
    mesh: Mesh | None = None,
    quantize: Quantization | None = None,
) -> tuple[Decoder, Tokenizer]:
    """A decoder and its tokenizer.

    Example:

        import jax.numpy as jnp

        model, tokenizer = load_model("mini", dtype="float32")
        logits = model(jnp.asarray([tokenizer.encode("2 + 2")]))  # int [B, T] -> float32 [B, T, V]

    Args:
      path_or_id: ``"mini"`` (the bundled verifier), a local folder, or a Hugging Face id; of a model, or of a
        LoRA adapter, which is then added to the base that it names; or a GGUF file. Or what ``find_model`` found.
      dtype: float32, bfloat16 or float16: what parameters are stored in and products take their inputs in,
        whatever the checkpoint's own dtype.
      mesh: where the parameters go, split as :mod:`thinkprm_jax.distributed.mesh` says; None: the default device.
        Of other axes than ours, as of :func:`.share_mesh`.
      quantize: "int8": weights are held in eight bits (:mod:`thinkprm_jax.model.quantization`), made while they
        are read; the rest is in ``dtype``.
    Raises:
      UserError: one line naming every problem of the checkpoint.
    """
    refuse_forked()
    dtype, quantize = float_dtype(dtype), check_quantization(quantize)
    files = find_model(path_or_id)
    for folder, adapter in files.adapters:
        logger.warning("%s is an adapter: it is added to its base %s", folder, adapter.base)
    config = read_model_config(files)
    tokenizer = Tokenizer.load(files.tokenizer_folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{files.tokenizer_folder}: the tokenizer has ids up to {tokenizer.vocab_size - 1}, "
            f"config.json a vocab_size of {config.vocab_size}"
        )
    return load_decoder(files, config, dtype, mesh, quantize), tokenizer


def load_decoder(
    files: ModelFiles | Path,
    config: ModelConfig,
    dtype: DTypeLike,
    mesh: Mesh | None = None,
    quantize: Quantization | None = None,
) -> Decoder:
    """The decoder of ``config`` with the weights of ``files``; see :func:`load_model`."""
    files = files if isinstance(files, ModelFiles) else ModelFiles(files)
    dtype, mesh = jnp.dtype(dtype), our_mesh(mesh)
    with reading(files.base):
        weights = Weights(files, config, parameter_shapes(config))  # first what does not fit, then the tracing
    abstract = nnx.eval_shape(
        lambda: Decoder(config, rngs=nnx.Rngs(0), param_dtype=dtype, dtype=dtype, quantization=quantize)
    )
    graph, state = nnx.split(abstract)
    parameters = {_dotted(path): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    counts = axis_counts(config)
    loaded = []
    with reading_threads() as pool:
        for tensor in weights.reading_order:
            path, leaf = parameters[tensor.path]
            scaled = parameters.get(tensor.path + SUFFIX)
            if scaled is None:
                read = functools.partial(weights.read, tensor, dtype=dtype, pool=pool)
                loaded.append((path, leaf.replace(_place(read, leaf.shape, tensor.axes, mesh, counts))))
                continue
            numbers = QuantizedTensor(weights, tensor, leaf.shape, pool)
            loaded.append((path, leaf.replace(_place(numbers.whole, leaf.shape, tensor.axes, mesh, counts))))
            path, leaf = scaled
            axes = scale_axes(tensor.path, tensor.axes)
            loaded.append((path, leaf.replace(_place(numbers.scale, leaf.shape, axes, mesh, counts))))
    return nnx.merge(graph, nnx.from_flat_state(loaded))


def read_config(place: str | Path) -> ModelConfig:
    """The architecture of a local folder or a GGUF file.

    bos and eos ids of generation_config.json win over those of config.json, as in transformers' generate: chat
    models list there every id that ends a turn.
    """
    content, source = read_config_content(Path(place))
    with reading(source):
        config = ModelConfig.from_hf(content, source)
    generation = Fields(read_generation_config(place), str(Path(place) / GENERATION_CONFIG))
    bos, eos = generation.id("bos_token_id"), generation.ids("eos_token_id")
    return dataclasses.replace(
        config,
        bos_token_id=config.bos_token_id if bos is None else bos,
        eos_token_id=config.eos_token_id if eos is None else eos,
    )


def read_config_content(place: Path) -> tuple[dict[str, Any], str]:
    """(the content of config.json, its place for messages); of a GGUF file, what config.json would say.

    Raises:
      UserError: there is none.
    """
    if place.is_file():
        with reading(place):
            return read_gguf_config(place), str(place)
    path = place / CONFIG
    if not path.is_file():
        raise UserError(f"{place}: holds no {CONFIG}")
    find_format(place)  # weights that are packed in another way than ours are refused before all else
    return read_json(path), str(path)


def read_model_config(files: ModelFiles) -> ModelConfig:
    """:func:`read_config` of a model, held against its weights where they are there.

    ``tie_word_embeddings`` counts where the files have no other head: with one, the head of the files does, as in
    transformers 5.

    Raises:
      UserError: as of :func:`read_config`; the files have another number of layers.
    """
    config = read_config(files.config_folder)
    if not holds_weights(files.base):
        return config
    check_layers(files.base, config.num_layers)
    if config.tie_embeddings and holds_other_head(files.base):
        logger.warning(
            "%s: tie_word_embeddings is true and %s is another matrix than the embedding: it is kept as the head",
            files.config_folder / CONFIG,
            HEAD,
        )
        return dataclasses.replace(config, tie_embeddings=False)
    return config


def read_generation_config(folder: str | Path) -> dict[str, Any]:
    """generation_config.json of a local folder; {} where there is none."""
    path = Path(folder) / GENERATION_CONFIG
    return read_json(path) if path.is_file() else {}


def float_dtype(dtype: DTypeLike) -> jnp.dtype:
    """Raises `UserError` for a dtype that weights cannot have."""
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found not in (jnp.float32, jnp.bfloat16, jnp.float16):
        raise UserError(f"dtype {dtype!r} is not supported (we have: float32, bfloat16, float16)")
    return found


def _dotted(path: Sequence[Any]) -> str:
    return ".".join(str(part) for part in path)


def check_quantization(name: str | None) -> Quantization | None:
    """Raises `UserError` for a kind of quantised weights that there is not."""
    if name not in (None, *get_args(Quantization)):
        raise UserError(f"quantize is {name!r} (it may be {', '.join(get_args(Quantization))})")
    return cast("Quantization | None", name)


def _place(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    mesh: Mesh | None,
    counts: Mapping[str, int],
) -> jax.Array:
    """One parameter on its devices, of the pieces that ``read`` gives. Waits for the copy, so that its host memory
    is free before the next."""
    if mesh is None:
        return jax.block_until_ready(jax.device_put(read((slice(None),) * len(shape))))
    pieces: dict[tuple[tuple[int, int], ...], np.ndarray] = {}  # copies of a piece on several devices: read once

    def piece(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None  # the array has a shape
        key = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        if key not in pieces:
            pieces[key] = read(index)
        return pieces[key]

    return jax.block_until_ready(jax.make_array_from_callback(shape, named_sharding(mesh, axes, counts), piece))


# Saving


def save_model(
    model: Decoder,
    tokenizer: Tokenizer,
    folder: str | Path,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    dtype: DTypeLike | None = None,
) -> None:
    """Writes a Hugging Face folder: config, generation config, tokenizer, weights; see :func:`write_folder`.

    With several processes all of them call this and the first one writes.

    Example:

        model, tokenizer = load_model("mini")
        save_model(model, tokenizer, "copy", dtype="bfloat16")

    Args:
      model, tokenizer: what is written. folder: a new or an empty one, of this machine or in a store.
      max_shard_bytes: above it the weights are split over several files with an index.
      dtype: what the weights are stored in; None: as they are.
    """
    if model.quantization is not None:
        raise UserError(f"weights in {model.quantization} cannot be saved: save the model that they were made of")
    place = location(folder).expanduser()
    check_target(place)
    parameters = {_dotted(path): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    weights = [_to_write(tensor, parameters[tensor.path], dtype) for tensor in stored_tensors(model.config)]

    def fill(written: Path) -> None:
        write_weights(written, weights, max_shard_bytes)
        tokenizer.save(written)
        write_configs(written, model.config, weights[0].dtype)

    if jax.process_index() == 0:
        write_folder(place, fill)
    else:
        for tensor in weights:  # a split array is gathered by all processes together
            tensor.fetch()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("save_model")


def _to_write(tensor: StoredTensor, array: jax.Array, dtype: DTypeLike | None) -> TensorToWrite:
    stored = np.dtype(array.dtype if dtype is None else float_dtype(dtype))

    def fetch() -> np.ndarray:
        if array.is_fully_addressable:
            host = np.asarray(array)
        else:
            host = multihost_utils.process_allgather(array, tiled=True)
        return stored_as(tensor.name, host.T if tensor.transposed else host, stored)

    return TensorToWrite(tensor.name, array.shape[:: -1 if tensor.transposed else 1], stored, fetch)


def write_configs(
    folder: Path, config: ModelConfig, dtype: np.dtype, generation: Mapping[str, Any] | None = None
) -> None:
    """config.json and generation_config.json.

    Args:
      dtype: of the weights. generation: of generation_config.json beside the ids of ``config``.
    """
    content = config.to_hf()
    content["torch_dtype"] = dtype.name  # the key of transformers 4, which version 5 and vLLM also read
    ids = {key: content[key] for key in ("bos_token_id", "eos_token_id") if content[key] is not None}
    generation = {**ids, **(generation or {})}
    if generation:
        write_json(folder / GENERATION_CONFIG, generation)
    write_json(folder / CONFIG, content)  # the last file: without it the folder does not load
