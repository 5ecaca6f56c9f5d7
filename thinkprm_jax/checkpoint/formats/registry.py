"""The one door to weights: whatever a model is stored as, its tensors by name as floats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.checkpoint.files import CONFIG
from thinkprm_jax.checkpoint.formats.awq import AwqFormat
from thinkprm_jax.checkpoint.formats.bitsandbytes import BitsAndBytesFormat
from thinkprm_jax.checkpoint.formats.compressed_tensors import CompressedTensorsFormat
from thinkprm_jax.checkpoint.formats.fp8 import Fp8Format
from thinkprm_jax.checkpoint.formats.gguf import GgufTensors
from thinkprm_jax.checkpoint.formats.gptq import GptqFormat
from thinkprm_jax.checkpoint.formats.packed import WAY_OUT, PackedTensor, UnpackedTensors, WeightFormat
from thinkprm_jax.checkpoint.pieces import TensorSource
from thinkprm_jax.checkpoint.stored import StoredTensors
from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.model.fields import shown
from thinkprm_jax.user_files import read_json

# `quant_method` of config.json -> how its weights are stored.
_FORMATS: dict[str, type[WeightFormat]] = {
    "awq": AwqFormat,
    "gptq": GptqFormat,
    "fp8": Fp8Format,
    "fbgemm_fp8": Fp8Format,
    "compressed-tensors": CompressedTensorsFormat,
    "bitsandbytes": BitsAndBytesFormat,
}
# Before config.json said it, the tools of these methods wrote a file of their own.
_OWN_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
_KEY = "quantization_config"
# What names the modules that are left as they are.
_LEFT_OUT = (
    *("modules_to_not_convert", "llm_int8_skip_modules", "ignore", "ignored_layers", "dynamic"),
    "modules_in_block_to_quantize",
)
_LAYER = re.compile(r"\.layers\.\d+")


def open_source(place: Path) -> TensorSource:
    """The tensors of a folder or of a GGUF file; nothing but headers is read yet.

    Raises:
      UserError: there are none, a file is damaged, or they are stored in a way that we do not have.
    """
    with reading(place):  # a packed folder says in many ways what cannot be
        if place.is_file():
            return GgufTensors(place)
        packing = find_format(place)
        stored = StoredTensors(place)
        if packing is None:
            return stored
        packed = packing.find(stored)
        _check_packed(place, stored, packed)
        return UnpackedTensors(stored, packed)


def find_format(folder: Path) -> WeightFormat | None:
    """How the weights of a folder are packed; None: they are not.

    Raises:
      UserError: in a way that we do not have; says what there is instead.
    """
    found = _settings(folder)
    if found is None:
        return None
    settings, where = found
    method = settings.get("quant_method")
    known = _FORMATS.get(str(method))
    if known is None:
        have = ", ".join(_FORMATS)
        raise UserError(f"{where}: quant_method {shown(method)} is not supported (we have: {have}); {WAY_OUT}")
    with reading(where):
        return known(settings, where)


def _check_packed(folder: Path, stored: StoredTensors, packed: Mapping[str, PackedTensor]) -> None:
    """UserError where a matrix of a layer is not packed though the configuration says that they are, or though
    that of another layer is: one of the two is of another model. Those that it leaves out may be as they are."""
    settings, where = _settings(folder) or ({}, "")
    if packed and any(settings.get(key) for key in _LEFT_OUT):
        return
    kinds = {_LAYER.sub("", name) for name in packed}
    for name, tensor in sorted(stored.tensors.items()):
        is_matrix = _LAYER.search(name) and name.endswith(".weight") and len(tensor.shape) == 2
        if is_matrix and name not in packed and (not packed or _LAYER.sub("", name) in kinds):
            method = settings.get("quant_method")
            raise UserError(f"{where} says {method}, and {name} is not packed: one of the two is of another model")


def _settings(folder: Path) -> tuple[Mapping[str, Any], str] | None:
    """(what is said of the packing, where)."""
    config = folder / CONFIG
    said = read_json(config).get(_KEY) if config.is_file() else None
    if isinstance(said, dict):
        return said, f"{config}: {_KEY}"
    if said is not None:
        raise UserError(f"{config}: {_KEY} is no object")
    for name, method in _OWN_FILES.items():
        if (folder / name).is_file():
            return {"quant_method": method, **read_json(folder / name)}, str(folder / name)
    return None
