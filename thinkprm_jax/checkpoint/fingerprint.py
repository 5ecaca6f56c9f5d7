"""Short texts that tell one model from another of the same name, without reading all of it.

That of the weights is made of

- the name, shape and number format of every tensor, and its first bytes: so of small ones (norms, heads) all;
- blocks spread evenly over every file, so of each large matrix several; of a small file all of it;
- the settings of adapters.

So a step of training changes it, and so does another merge or another number format; an edit of a few numbers in
the middle of a large matrix may not. Of a 30 GB model it reads some 30 MB. Beside it stand those of the
configuration, the tokenizer and the chat template, of whose files all is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from thinkprm_jax.checkpoint.files import ADAPTER_WEIGHTS, CONFIG, INDEX_FILE, SINGLE_FILE
from thinkprm_jax.checkpoint.formats.gguf import GgufTensors
from thinkprm_jax.checkpoint.huggingface import read_generation_config
from thinkprm_jax.checkpoint.safetensors_io import SafetensorsFile
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.checkpoint.weights import ModelFiles
from thinkprm_jax.errors import UserError
from thinkprm_jax.gguf_header import parts_of, read_header
from thinkprm_jax.tokenizer.files import digest_of, text_fingerprints
from thinkprm_jax.user_files import read_json

_BLOCK_BYTES = 4096
_BLOCKS = 1024  # of a file
_NO_MATTER = ("architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
_ENDS = ("bos_token_id", "eos_token_id")  # what is read of generation_config.json


def fingerprints(model: ModelFiles) -> dict[str, str]:
    """Of all files that decide what a model writes, by the names of ``FINGERPRINTS``.

    Raises:
      UserError: one of them is missing, or cannot be read.
    """
    folder = model.tokenizer_folder
    try:
        texts = text_fingerprints(folder)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return {"config": _of_config(model.config_folder), **texts, "weights": fingerprint(model)}


def fingerprint(model: ModelFiles) -> str:
    """Of a model's weights, wherever it lies: the same for a copy, another one for other weights.

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


def _of_config(place: Path) -> str:
    """Of the values that decide something: not who wrote the file, and not the dtype, which is asked for."""
    if place.is_file():
        metadata = read_header(place).metadata
        family = f"{metadata.get('general.architecture')}."
        return digest_of({name: value for name, value in metadata.items() if name.startswith(family)})
    config = read_json(place / CONFIG)
    return digest_of(
        {name: value for name, value in config.items() if name not in _NO_MATTER and not name.startswith("_")},
        {name: value for name, value in read_generation_config(place).items() if name in _ENDS},
    )


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
