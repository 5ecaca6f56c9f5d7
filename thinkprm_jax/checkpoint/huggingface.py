"""Decoders from and to Hugging Face folders (config.json, safetensors, tokenizer).

Loading streams: the model is built abstractly, then one parameter after another goes from its file to its
place on the mesh. A process reads the slices that its own devices hold and keeps one of them on the host.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.typing import DTypeLike

from thinkprm_jax.checkpoint.names import StoredTensor, ignorable, stored_tensors
from thinkprm_jax.checkpoint.safetensors_io import (
    DTYPES,
    SafetensorsFile,
    TensorToWrite,
    reading_threads,
    write_safetensors,
)
from thinkprm_jax.errors import UserError
from thinkprm_jax.mesh import axis_counts, named_sharding
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.text import tokenizer_files
from thinkprm_jax.text.tokenizer import Tokenizer
from thinkprm_jax.text.tokenizer_files import TOKENIZER_FILES

BUNDLED = {"mini": Path(__file__).resolve().parents[1] / "bundled" / "mini"}
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
_MODEL_FILES = ["config.json", "generation_config.json", "model*.safetensors", INDEX_FILE, *TOKENIZER_FILES]
_LISTED = 20  # names in an error message before "and n more"


def load_model(
    path_or_id: str | Path, dtype: DTypeLike = "float32", mesh: Mesh | None = None
) -> tuple[Decoder, Tokenizer]:
    """A decoder and its tokenizer.

    Args:
      path_or_id: ``"mini"`` (the bundled verifier), a local folder, or a Hugging Face id.
      dtype: float32, bfloat16 or float16: what parameters are stored in and products take their inputs in,
        whatever the checkpoint's own dtype.
      mesh: where the parameters go, split as :mod:`thinkprm_jax.mesh` says; None: the default device.
    Raises:
      UserError: one line naming every problem of the checkpoint.
    """
    dtype = _float_dtype(dtype)
    folder = resolve_folder(path_or_id)
    config = read_config(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has ids up to {tokenizer.vocab_size - 1}, "
            f"config.json a vocab_size of {config.vocab_size}"
        )
    return load_decoder(folder, config, dtype, mesh), tokenizer


def load_decoder(folder: Path, config: ModelConfig, dtype: DTypeLike, mesh: Mesh | None = None) -> Decoder:
    """The decoder of ``config`` with the weights of ``folder``; see :func:`load_model`."""
    dtype = jnp.dtype(dtype)
    abstract = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), param_dtype=dtype, dtype=dtype))
    graph, state = nnx.split(abstract)
    parameters = {_dotted(path): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    tensors = stored_tensors(config)
    files = _open_weights(folder)
    shapes = {tensor.path: parameters[tensor.path][1].shape for tensor in tensors}
    _check_tensors(folder, config, tensors, shapes, files)
    counts = axis_counts(config)
    # Along each file from its start to its end: disks and network file systems read ahead.
    tensors.sort(key=lambda tensor: (files[tensor.name].path.name, files[tensor.name].tensors[tensor.name].start))
    loaded = []
    with reading_threads() as pool:
        for tensor in tensors:
            path, leaf = parameters[tensor.path]
            sharding = None if mesh is None else named_sharding(mesh, tensor.axes, counts)
            array = _place(files[tensor.name], tensor, leaf.shape, dtype, sharding, pool)
            loaded.append((path, leaf.replace(array)))
    return nnx.merge(graph, nnx.from_flat_state(loaded))


def read_config(folder: str | Path) -> ModelConfig:
    """The architecture of a local folder.

    bos and eos ids of generation_config.json win over those of config.json, as in transformers' generate: chat
    models list there every id that ends a turn.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: holds no config.json")
    config = ModelConfig.from_hf(_read_json(path), str(path))
    path = folder / "generation_config.json"
    if path.is_file():
        generation = _read_json(path)
        for key in ("bos_token_id", "eos_token_id"):
            if generation.get(key) is not None:
                ids = generation[key]
                config = dataclasses.replace(config, **{key: tuple(ids) if isinstance(ids, list) else ids})
    return config


def resolve_folder(path_or_id: str | Path) -> Path:
    """The local folder of a model: bundled, given, or downloaded; see :func:`load_model`."""
    if str(path_or_id) in BUNDLED:
        return BUNDLED[str(path_or_id)]
    return tokenizer_files.resolve_folder(path_or_id, _MODEL_FILES)


def _float_dtype(dtype: DTypeLike) -> jnp.dtype:
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found not in (jnp.float32, jnp.bfloat16, jnp.float16):
        raise UserError(f"dtype {dtype!r} is not supported (we have: float32, bfloat16, float16)")
    return found


def _dotted(path: Sequence[Any]) -> str:
    return ".".join(str(part) for part in path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no JSON object")
    return content


# Weights


def _open_weights(folder: Path) -> dict[str, SafetensorsFile]:
    """Tensor name -> its file, for every tensor of the folder."""
    if (folder / SINGLE_FILE).is_file():
        file = SafetensorsFile(folder / SINGLE_FILE)
        return dict.fromkeys(file.tensors, file)
    index = folder / INDEX_FILE
    if not index.is_file():
        torch_only = any(folder.glob("pytorch_model*.bin"))
        hint = " (its pytorch_model.bin is not read: convert it to safetensors)" if torch_only else ""
        raise UserError(f"{folder}: holds neither {SINGLE_FILE} nor {INDEX_FILE}{hint}")
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UserError(f"{index}: names files outside its folder: {_listed(outside)}")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{index}: names files that are not there: {_listed(absent)}")
    files = {name: SafetensorsFile(folder / name) for name in names}
    return {tensor: file for file in files.values() for tensor in file.tensors}


def _check_tensors(
    folder: Path,
    config: ModelConfig,
    tensors: Sequence[StoredTensor],
    shapes: dict[str, tuple[int, ...]],
    files: dict[str, SafetensorsFile],
) -> None:
    """One `UserError` for everything that does not fit between the decoder and the files."""
    expected = {tensor.name: tensor for tensor in tensors}
    missing = [name for name in expected if name not in files]
    unexpected = sorted(name for name in files if name not in expected and not ignorable(name, config))
    shaped, typed = [], []
    for name, tensor in expected.items():
        if name in missing:
            continue
        info = files[name].tensors[name]
        shape = tuple(shapes[tensor.path])[:: -1 if tensor.transposed else 1]
        if info.shape != shape:
            shaped.append(f"{name} {list(info.shape)} instead of {list(shape)}")
        if info.dtype not in DTYPES:
            typed.append(f"{name} {info.dtype}")
    groups = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("wrong shape", shaped),
        (f"stored in a dtype that is not one of {', '.join(DTYPES)}", typed),
    )
    problems = [f"{title}: {_listed(names)}" for title, names in groups if names]
    if problems:
        raise UserError(f"{folder}: the tensors do not fit config.json; {'; '.join(problems)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _place(
    file: SafetensorsFile,
    tensor: StoredTensor,
    shape: tuple[int, ...],
    dtype: jnp.dtype,
    sharding: jax.sharding.Sharding | None,
    pool: ThreadPoolExecutor,
) -> jax.Array:
    """One parameter on its devices. Waits for the copy, so that its host memory is free before the next."""
    if sharding is None:
        everything = (slice(None),) * len(shape)
        return jax.block_until_ready(
            jax.device_put(file.read(tensor.name, everything, tensor.transposed, dtype, pool))
        )
    pieces: dict[tuple[tuple[int, int], ...], np.ndarray] = {}  # copies of a piece on several devices: read once

    def piece(index: tuple[slice, ...]) -> np.ndarray:
        key = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        if key not in pieces:
            pieces[key] = file.read(tensor.name, index, tensor.transposed, dtype, pool)
        return pieces[key]

    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, piece))


# Saving


def save_model(
    model: Decoder,
    tokenizer: Tokenizer,
    folder: str | Path,
    max_shard_bytes: int = 5 * 10**9,
    dtype: DTypeLike | None = None,
) -> None:
    """Writes a Hugging Face folder: config, generation config, tokenizer, weights.

    A new folder appears whole or not at all. In a folder with other files, an older model is replaced and
    config.json comes last, so that an interrupted save leaves a folder that does not load rather than a mixture.
    With several processes all of them call this and the first one writes.

    Args:
      max_shard_bytes: above it the weights are split over several files with an index.
      dtype: what the weights are stored in; None: as they are.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder")
    parameters = {_dotted(path): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    weights = [_to_write(tensor, parameters[tensor.path], dtype) for tensor in stored_tensors(model.config)]
    if jax.process_index() == 0:
        _write_folder(folder, model.config, tokenizer, weights, max_shard_bytes)
    else:
        for tensor in weights:  # a split array is gathered by all processes together
            tensor.fetch()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("save_model")


def _write_folder(
    folder: Path, config: ModelConfig, tokenizer: Tokenizer, weights: Sequence[TensorToWrite], max_shard_bytes: int
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        written = Path(work) / "model"
        written.mkdir()
        _write_weights(written, weights, max_shard_bytes)
        tokenizer.save(written)
        _write_configs(written, config, weights[0].dtype)
        if not folder.exists():
            written.rename(folder)
            return
        for old in [folder / "config.json", folder / INDEX_FILE, *sorted(folder.glob("model*.safetensors"))]:
            old.unlink(missing_ok=True)
        for file in sorted(written.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(file, folder / file.name)


def _to_write(tensor: StoredTensor, array: jax.Array, dtype: DTypeLike | None) -> TensorToWrite:
    stored = np.dtype(array.dtype if dtype is None else _float_dtype(dtype))

    def fetch() -> np.ndarray:
        if array.is_fully_addressable:
            host = np.asarray(array)
        else:
            host = multihost_utils.process_allgather(array, tiled=True)
        return (host.T if tensor.transposed else host).astype(stored, copy=False)

    return TensorToWrite(tensor.name, array.shape[:: -1 if tensor.transposed else 1], stored, fetch)


def _write_weights(folder: Path, weights: Sequence[TensorToWrite], max_shard_bytes: int) -> None:
    shards: list[list[TensorToWrite]] = [[]]
    for tensor in weights:
        if shards[-1] and sum(held.nbytes for held in shards[-1]) + tensor.nbytes > max_shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        write_safetensors(folder / SINGLE_FILE, weights, {"format": "pt"})
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, shard, {"format": "pt"})
        weight_map.update(dict.fromkeys((tensor.name for tensor in shard), name))
    total = sum(tensor.nbytes for tensor in weights)
    _write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_configs(folder: Path, config: ModelConfig, dtype: np.dtype) -> None:
    content = config.to_hf()
    content["torch_dtype"] = dtype.name  # the key of transformers 4, which version 5 and vLLM also read
    _write_json(folder / "config.json", content)
    ids = {key: content[key] for key in ("bos_token_id", "eos_token_id") if key in content}
    if ids:
        _write_json(folder / "generation_config.json", ids)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
