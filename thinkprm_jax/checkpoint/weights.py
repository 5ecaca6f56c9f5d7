"""The weights of a model folder as they lie in its files: found, checked and read piece by piece.

A folder with an adapter stands for its base with the adapter added. The sum is made in float32 while a kernel is
read, so a merged model never exists beside the base.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinkprm_jax.checkpoint.adapter import Adapter, AdapterConfig, is_adapter, read_adapter, read_adapter_config
from thinkprm_jax.checkpoint.files import (
    ADAPTER_CONFIG,
    CARD,
    CONFIG,
    INDEX_FILE,
    MODEL_FILES,
    SINGLE_FILE,
    listed,
)
from thinkprm_jax.checkpoint.formats.registry import open_source
from thinkprm_jax.checkpoint.names import EMBEDDING, HEAD, StoredTensor, ignorable, layers_named, stored_tensors
from thinkprm_jax.checkpoint.pieces import TensorSource, reading_threads
from thinkprm_jax.checkpoint.safetensors_io import DTYPES
from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.tokenizer import files as tokenizer_files

_BUNDLED = Path(__file__).resolve().parents[1] / "bundled"
BUNDLED = {name: _BUNDLED / name.replace("-", "_") for name in ("mini", "mini-weak", "mini-solver")}
# The card's header names the licence; the other two say how weights are packed, where config.json does not.
_WANTED = [*MODEL_FILES, CARD, "quantize_config.json", "quant_config.json"]
_COMPARED = 2**21  # numbers at a time


def resolve_folder(path_or_id: str | Path) -> Path:
    """The local folder of a model or adapter: bundled, given, or downloaded."""
    if str(path_or_id) in BUNDLED:
        return BUNDLED[str(path_or_id)]
    return tokenizer_files.resolve_folder(path_or_id, _WANTED)


@dataclass(frozen=True)
class ModelFiles:
    """Where a model is: ``base`` holds its configuration and whole weights, ``adapters`` are added, in order.

    A GGUF file is a base, too, and then stands in place of the folder of the configuration and of the tokenizer.
    """

    base: Path
    adapters: tuple[tuple[Path, AdapterConfig], ...] = ()

    @property
    def tokenizer_folder(self) -> Path:
        """An adapter's own tokenizer, where it has one, wins over its base's."""
        return self._first_with("tokenizer.json", "tokenizer.model")

    @property
    def config_folder(self) -> Path:
        """The same for config.json: ours are beside our adapters, peft writes none."""
        return self._first_with(CONFIG)

    def _first_with(self, *names: str) -> Path:
        folders = [folder for folder, _ in reversed(self.adapters)]
        return next((folder for folder in folders if any((folder / name).is_file() for name in names)), self.base)


def find_model(path_or_id: str | Path | ModelFiles) -> ModelFiles:
    """The folders that make up a model; of one that was found already, what was found.

    Raises:
      UserError: there is none; an adapter is of a kind that we do not have, or its base cannot be found.
    """
    if isinstance(path_or_id, ModelFiles):
        return path_or_id
    folder = resolve_folder(path_or_id)
    adapters: list[tuple[Path, AdapterConfig]] = []
    while is_adapter(folder):
        if any(folder == seen for seen, _ in adapters):
            raise UserError(f"{folder}: the adapter is its own base")
        with reading(folder / ADAPTER_CONFIG):
            adapter = read_adapter_config(folder)
        adapters.insert(0, (folder, adapter))
        try:
            base = resolve_folder(adapter.base)
        except UserError as error:
            raise UserError(f"{folder}: the base of this adapter: {error}") from error
        folder = base
    return ModelFiles(folder, tuple(adapters))


class Weights:
    """The checked tensors of a model; opening reads headers and adapters only.

    Raises:
      UserError: one line naming every tensor that does not fit ``config``.
    """

    def __init__(self, model: ModelFiles, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """``shapes``: of our parameters, by dotted path."""
        self._source = open_source(model.base)
        self.tensors = stored_tensors(config)
        if config.tie_embeddings and EMBEDDING not in self._source.tensors and HEAD in self._source.tensors:
            # One matrix, stored under its other name.
            table = next(tensor for tensor in self.tensors if tensor.name == EMBEDDING)
            self.tensors[self.tensors.index(table)] = dataclasses.replace(table, name=HEAD)
        _check_tensors(model.base, config, self.tensors, shapes, self._source)
        self._adapters = [read_adapter(folder, found, config) for folder, found in model.adapters]
        # Along each file from its start to its end: disks and network file systems read ahead.
        self.reading_order = sorted(self.tensors, key=lambda tensor: self._source.place(tensor.name))

    def add(self, adapter: Adapter) -> None:
        """From here on the weights are those with ``adapter``."""
        self._adapters.append(adapter)

    def read(
        self, tensor: StoredTensor, index: tuple[slice, ...], dtype: np.dtype, pool: ThreadPoolExecutor
    ) -> np.ndarray:
        """The piece ``index`` of our parameter, in our orientation."""
        if not self._adapted(tensor):
            return self._source.read(tensor.name, index, tensor.transposed, dtype, pool)
        piece = self._source.read(tensor.name, index, tensor.transposed, np.dtype(np.float32), pool)
        for adapter in self._adapters:
            adapter.add_to(piece, tensor.path, index)
        return piece.astype(dtype, copy=False)

    def read_stored(self, tensor: StoredTensor, pool: ThreadPoolExecutor) -> np.ndarray:
        """The whole tensor in float32, in the orientation of the file."""
        everything = tuple(slice(size) for size in self._source.tensors[tensor.name].shape)
        whole = self._source.read(tensor.name, everything, False, np.dtype(np.float32), pool)
        if self._adapted(tensor):
            for adapter in self._adapters:
                adapter.add_to(whole.T, tensor.path, everything[::-1])
        return whole

    def _adapted(self, tensor: StoredTensor) -> bool:
        return any(tensor.path.removesuffix(".kernel") in adapter.matrices for adapter in self._adapters)


def holds_weights(place: Path) -> bool:
    """Whether a folder has weights beside its config.json; a GGUF file has."""
    return place.is_file() or any((place / name).is_file() for name in (SINGLE_FILE, INDEX_FILE))


def check_layers(place: Path, layers: int) -> None:
    """Before anything is computed from a configuration: raises `UserError` where the weights have another number
    of layers than it says."""
    found = layers_named(open_source(place).tensors)
    if found and found != layers:  # without any, their names are told when they are held against the decoder's
        said = f"{place}: block_count" if place.is_file() else f"{place / CONFIG}: num_hidden_layers"
        raise UserError(f"{said} is {layers}, the weights beside it have {found}")


def holds_other_head(place: Path) -> bool:
    """Whether the weights have a head over the vocabulary that is not the embedding."""
    source = open_source(place)
    pair = [source.tensors[name] for name in (EMBEDDING, HEAD) if name in source.tensors]
    if len(pair) < 2:
        return False
    shape = pair[0].shape
    if shape != pair[1].shape or len(shape) != 2 or any(info.dtype not in DTYPES for info in pair):
        return True  # and whoever loads them says what does not fit
    rows = max(_COMPARED // shape[1], 1)
    with reading_threads() as pool:
        read = functools.partial(source.read, transposed=False, dtype=np.dtype(np.float32), pool=pool)
        for start in range(0, shape[0], rows):
            part = slice(start, min(start + rows, shape[0])), slice(None)
            if not np.array_equal(read(EMBEDDING, part), read(HEAD, part)):
                return True
    return False


def _check_tensors(
    folder: Path,
    config: ModelConfig,
    tensors: Sequence[StoredTensor],
    shapes: Mapping[str, tuple[int, ...]],
    source: TensorSource,
) -> None:
    """One `UserError` for everything that does not fit between the decoder and the files."""
    expected = {tensor.name: tensor for tensor in tensors}
    found = source.tensors
    missing = [name for name in expected if name not in found]
    unexpected = sorted(
        name
        for name in found
        if name not in expected and not ignorable(name, config) and not _is_no_bias(name, source)
    )
    shaped, typed = [], []
    for name, tensor in expected.items():
        if name in missing:
            continue
        info = found[name]
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
    problems = [f"{title}: {listed(names)}" for title, names in groups if names]
    if problems:
        said_by = "its metadata" if folder.is_file() else "config.json"
        raise UserError(f"{folder}: the tensors do not fit {said_by}; {'; '.join(problems)}")


def _is_no_bias(name: str, source: TensorSource) -> bool:
    """True for a bias of zeros: tools that pack weights write one for maps that have none."""
    shape = source.tensors[name].shape
    if not name.endswith(".bias") or len(shape) != 1 or source.tensors[name].dtype not in DTYPES:
        return False
    with reading_threads() as pool:
        return not source.read(name, (slice(None),), False, np.dtype(np.float32), pool).any()
