"""A short text that tells the weights of one model from those of another, without reading all of them.

It is made of

- the name, shape and number format of every tensor, and its first bytes: so of small ones (norms, heads) all;
- blocks spread evenly over every file, so of each large matrix several; of a small file all of it;
- the settings of adapters.

So a step of training changes it, and so does another merge or another number format; an edit of a few numbers in
the middle of a large matrix may not. Of a 30 GB model it reads some 30 MB.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from thinkprm_jax.checkpoint.files import ADAPTER_WEIGHTS, INDEX_FILE, SINGLE_FILE
from thinkprm_jax.checkpoint.formats.gguf import GgufTensors
from thinkprm_jax.checkpoint.safetensors_io import SafetensorsFile
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.checkpoint.weights import ModelFiles
from thinkprm_jax.errors import UserError
from thinkprm_jax.gguf_header import parts_of
from thinkprm_jax.user_files import read_json

_BLOCK_BYTES = 4096
_BLOCKS = 1024  # of a file


def fingerprint(model: ModelFiles) -> str:
    """Of a model, wherever it lies: the same for a copy, another one for other weights.

    Raises:
      UserError: there are no weights, or a file of them cannot be read.
    """
    digest = hashlib.sha256(_of_first_bytes(model).encode())
    for _, adapter in model.adapters:
        settings = dataclasses.asdict(adapter)
        del settings["base"]  # a path may change
        digest.update(repr(sorted(settings.items())).encode())
    for path in weight_files(model):
        _add_blocks(digest, path)
    return digest.hexdigest()[:32]


def is_fingerprint_of(known: str, model: ModelFiles) -> bool:
    """Whether ``known`` is of this model. It may be from before :func:`fingerprint` saw more than first bytes."""
    return known in (fingerprint(model), _of_first_bytes(model))


def weight_files(model: ModelFiles) -> list[Path]:
    """The files that hold its numbers, in an order of their own."""
    base = model.base
    if not base.is_dir():
        found = parts_of(base)  # of GGUF
    elif (base / SINGLE_FILE).is_file():
        found = [base / SINGLE_FILE]
    else:
        names = read_json(base / INDEX_FILE).get("weight_map", {}).values()
        found = [base / name for name in sorted(set(names))]
    return [*found, *(folder / ADAPTER_WEIGHTS for folder, _ in model.adapters)]


def _of_first_bytes(model: ModelFiles) -> str:
    """Names, number formats, shapes and the first bytes of every tensor."""
    digest = hashlib.sha256()
    files: list[SafetensorsFile] = []
    if model.base.is_file():
        for part in GgufTensors(model.base).fingerprint_parts(_BLOCK_BYTES):
            digest.update(part)
    else:  # as they are stored: packed weights are not unpacked for this
        files += [file for _, file in sorted(StoredTensors(model.base).files.items())]
    files += [SafetensorsFile(folder / ADAPTER_WEIGHTS) for folder, _ in model.adapters]
    for file in dict.fromkeys(files):
        for name, info in sorted(file.tensors.items()):
            digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
            digest.update(file.first_bytes(name, _BLOCK_BYTES))
    return digest.hexdigest()[:32]


def _add_blocks(digest: hashlib._Hash, path: Path) -> None:
    try:
        with open(path, "rb", buffering=0) as file:
            size = file.seek(0, 2)
            digest.update(str(size).encode())
            if size <= _BLOCKS * _BLOCK_BYTES:
                starts = range(0, size, _BLOCK_BYTES)
            else:
                starts = range(0, size - _BLOCK_BYTES + 1, (size - _BLOCK_BYTES) // (_BLOCKS - 1))
            for start in starts:
                file.seek(start)
                digest.update(file.read(_BLOCK_BYTES))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
