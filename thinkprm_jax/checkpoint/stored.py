"""The tensors of a folder's safetensors files, one or many, by name and as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from thinkprm_jax.checkpoint.files import INDEX_FILE, SINGLE_FILE, listed
from thinkprm_jax.checkpoint.pieces import TensorInfo
from thinkprm_jax.checkpoint.safetensors_io import SafetensorsFile
from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.user_files import read_json


class StoredTensors:
    """A :class:`TensorSource` of what a folder holds; opening it reads headers only."""

    def __init__(self, folder: Path) -> None:
        """Raises `UserError` where there are no weights, or a file of them is missing or damaged."""
        self.folder = folder
        self.files: Mapping[str, SafetensorsFile] = _open_files(folder)
        self.tensors: Mapping[str, TensorInfo] = {name: file.tensors[name] for name, file in self.files.items()}

    def read(
        self, name: str, index: tuple[slice, ...], transposed: bool, dtype: np.dtype, pool: ThreadPoolExecutor
    ) -> np.ndarray:
        return self.files[name].read(name, index, transposed, dtype, pool)

    def place(self, name: str) -> tuple[str, int]:
        return self.files[name].path.name, self.tensors[name].number

    def stored(self, name: str, *index: slice) -> np.ndarray:
        """A piece of a tensor as it is stored; all of it without an index."""
        return self.files[name].stored(name, index or tuple(slice(None) for _ in self.tensors[name].shape))


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
    with reading(index):  # names that are longer than a system's can be
        absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{index}: names files that are not there: {listed(absent)}")
    files = {name: SafetensorsFile(folder / name) for name in names}
    return {tensor: file for file in files.values() for tensor in file.tensors}
