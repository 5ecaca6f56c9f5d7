"""The weights of a model folder as they lie in its files: found, checked and read piece by piece.

A folder with an adapter stands for its base with the adapter added. The sum is made in float32 while a kernel is
read, so a merged model never exists beside the base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinkprm_jax.checkpoint.adapter import Adapter, AdapterConfig, is_adapter, read_adapter, read_adapter_config
from thinkprm_jax.checkpoint.files import (
    ADAPTER_WEIGHTS,
    CARD,
    CONFIG,
    INDEX_FILE,
    MODEL_FILES,
    SINGLE_FILE,
    listed,
)
from thinkprm_jax.checkpoint.names import StoredTensor, ignorable, stored_tensors
from thinkprm_jax.checkpoint.safetensors_io import DTYPES, SafetensorsFile
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.records.files import read_json
from thinkprm_jax.tokenizer import files as tokenizer_files

_BUNDLED = Path(__file__).resolve().parents[1] / "bundled"
BUNDLED = {name: _BUNDLED / name.replace("-", "_") for name in ("mini", "mini-weak", "mini-solver")}
_WANTED = [*MODEL_FILES, CARD]  # the card's header names the licence
_FINGERPRINT_BYTES = 4096  # of every tensor


def resolve_folder(path_or_id: str | Path) -> Path:
    """The local folder of a model or adapter: bundled, given, or downloaded."""
    if str(path_or_id) in BUNDLED:
        return BUNDLED[str(path_or_id)]
    return tokenizer_files.resolve_folder(path_or_id, _WANTED)


@dataclass(frozen=True)
class ModelFiles:
    """Where a model is: ``base`` holds config.json and whole weights, ``adapters`` are added to it, in order."""

    base: Path
    adapters: tuple[tuple[Path, AdapterConfig], ...] = ()

    @property
    def tokenizer_folder(self) -> Path:
        """An adapter's own tokenizer, where it has one, wins over its base's."""
        return self._first_with("tokenizer.json")

    @property
    def config_folder(self) -> Path:
        """The same for config.json: ours are beside our adapters, peft writes none."""
        return self._first_with(CONFIG)

    def _first_with(self, name: str) -> Path:
        folders = [folder for folder, _ in reversed(self.adapters)]
        return next((folder for folder in folders if (folder / name).is_file()), self.base)


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
        self.tensors = stored_tensors(config)
        self._files = _open_files(model.base)
        _check_tensors(model.base, config, self.tensors, shapes, self._files)
        self._adapters = [read_adapter(folder, found, config) for folder, found in model.adapters]
        # Along each file from its start to its end: disks and network file systems read ahead.
        self.reading_order = sorted(self.tensors, key=self._place)

    def add(self, adapter: Adapter) -> None:
        """From here on the weights are those with ``adapter``."""
        self._adapters.append(adapter)

    def read(
        self, tensor: StoredTensor, index: tuple[slice, ...], dtype: np.dtype, pool: ThreadPoolExecutor
    ) -> np.ndarray:
        """The piece ``index`` of our parameter, in our orientation."""
        file = self._files[tensor.name]
        if not self._adapted(tensor):
            return file.read(tensor.name, index, tensor.transposed, dtype, pool)
        piece = file.read(tensor.name, index, tensor.transposed, np.dtype(np.float32), pool)
        for adapter in self._adapters:
            adapter.add_to(piece, tensor.path, index)
        return piece.astype(dtype, copy=False)

    def read_stored(self, tensor: StoredTensor, pool: ThreadPoolExecutor) -> np.ndarray:
        """The whole tensor in float32, in the orientation of the file."""
        file = self._files[tensor.name]
        everything = tuple(slice(size) for size in file.tensors[tensor.name].shape)
        whole = file.read(tensor.name, everything, False, np.dtype(np.float32), pool)
        if self._adapted(tensor):
            for adapter in self._adapters:
                adapter.add_to(whole.T, tensor.path, everything[::-1])
        return whole

    def _adapted(self, tensor: StoredTensor) -> bool:
        return any(tensor.path.removesuffix(".kernel") in adapter.matrices for adapter in self._adapters)

    def _place(self, tensor: StoredTensor) -> tuple[str, int]:
        file = self._files[tensor.name]
        return file.path.name, file.tensors[tensor.name].number


def fingerprint(model: ModelFiles) -> str:
    """Tells models apart: names, dtypes, shapes and the first bytes of every tensor, adapters included."""
    digest = hashlib.sha256()
    files = [file for _, file in sorted(_open_files(model.base).items())]
    files += [SafetensorsFile(folder / ADAPTER_WEIGHTS) for folder, _ in model.adapters]
    for file in dict.fromkeys(files):
        for name, info in sorted(file.tensors.items()):
            digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
            digest.update(file.first_bytes(name, _FINGERPRINT_BYTES))
    return digest.hexdigest()[:32]


def _open_files(folder: Path) -> dict[str, SafetensorsFile]:
    """Tensor name -> its file, for every tensor of the folder."""
    if (folder / SINGLE_FILE).is_file():
        file = SafetensorsFile(folder / SINGLE_FILE)
        return dict.fromkeys(file.tensors, file)
    index = folder / INDEX_FILE
    if not index.is_file():
        torch_only = any(folder.glob("pytorch_model*.bin"))
        hint = " (its pytorch_model.bin is not read: convert it to safetensors)" if torch_only else ""
        raise UserError(f"{folder}: holds neither {SINGLE_FILE} nor {INDEX_FILE}{hint}")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UserError(f"{index}: names files outside its folder: {listed(outside)}")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{index}: names files that are not there: {listed(absent)}")
    files = {name: SafetensorsFile(folder / name) for name in names}
    return {tensor: file for file in files.values() for tensor in file.tensors}


def _check_tensors(
    folder: Path,
    config: ModelConfig,
    tensors: Sequence[StoredTensor],
    shapes: Mapping[str, tuple[int, ...]],
    files: Mapping[str, SafetensorsFile],
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
    problems = [f"{title}: {listed(names)}" for title, names in groups if names]
    if problems:
        raise UserError(f"{folder}: the tensors do not fit config.json; {'; '.join(problems)}")
