"""What model and adapter folders share: several weight files with an index, folders that appear whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from thinkprm_jax.checkpoint.safetensors_io import TensorToWrite, write_safetensors
from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import check_output_folder
from thinkprm_jax.records.files import write_json
from thinkprm_jax.storage import Location, ObjectPath
from thinkprm_jax.storage.copies import upload_folder
from thinkprm_jax.tokenizer.files import TOKENIZER_FILES

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MAX_SHARD_BYTES = 5 * 10**9

# Without these a folder does not load; they go first when a model is replaced, and their successors come last.
_KEYS = (CONFIG, ADAPTER_CONFIG)
# Everything that a model or adapter folder of ours can hold beside its card.
MODEL_FILES = (*_KEYS, INDEX_FILE, ADAPTER_WEIGHTS, GENERATION_CONFIG, "model*.safetensors", *TOKENIZER_FILES)
CARD = "README.md"
_LISTED = 20  # names in an error message before "and n more"


def listed(names: Sequence[str]) -> str:
    """The first names, for an error message."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def check_target(folder: Location) -> None:
    """Before the work begins: raises `UserError` where ``folder`` cannot become a folder."""
    check_output_folder(folder)


def write_folder(folder: Location, fill: Callable[[Path], None]) -> None:
    """Lets ``fill`` write files into a new place of this machine and then moves them to ``folder``.

    A new folder appears whole or not at all. In a folder with other files, and in a store, an older model or
    adapter is replaced and config.json comes last, so that an interrupted save leaves a folder that does not load
    rather than a mixture.
    """
    check_target(folder)
    if isinstance(folder, ObjectPath):
        _upload(folder, fill)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        written = Path(work) / "model"
        written.mkdir()
        fill(written)
        if not folder.exists():
            written.rename(folder)
            return
        for pattern in MODEL_FILES:
            for old in sorted(folder.glob(pattern)):
                old.unlink()
        for file in sorted(written.iterdir(), key=lambda path: path.name in _KEYS):
            os.replace(file, folder / file.name)


def _upload(folder: ObjectPath, fill: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="thinkprm-upload-") as work:
        written = Path(work)
        fill(written)
        for key in _KEYS:
            (folder / key).unlink(missing_ok=True)
        for pattern in MODEL_FILES:
            for old in folder.glob(pattern):
                if not (written / old.name).exists():
                    old.unlink(missing_ok=True)
        upload_folder(written, folder, last=[key for key in _KEYS if (written / key).exists()])


def write_weights(folder: Path, weights: Sequence[TensorToWrite], max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """model.safetensors; above ``max_shard_bytes`` several files with an index. Holds one tensor at a time."""
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
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


def stored_as(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``array`` in ``dtype``. Raises `UserError` where a number is not finite, or would not be in ``dtype``."""
    if array.dtype == dtype or not array.size:
        return array
    limit = float(np.finfo(dtype).max) if dtype.kind == "f" else np.inf  # bfloat16 reaches as far as float32
    lowest, highest = float(array.min()), float(array.max())
    if not (lowest >= -limit and highest <= limit):
        raise UserError(f"{name}: its numbers go from {lowest:g} to {highest:g}, which {dtype.name} cannot hold")
    return array.astype(dtype)
