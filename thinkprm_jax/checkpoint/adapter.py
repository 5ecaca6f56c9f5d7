"""LoRA adapters in the layout of peft: adapter_config.json and adapter_model.safetensors.

peft keeps A as [r, in] and B as [out, r], each under the name of its module in the wrapped model. An adapter is
read only if its arithmetic is that of :mod:`thinkprm_jax.model.lora`, W + scale A B with one scale. A field of the
configuration that says otherwise is refused by name, and so is a field that is in use and unknown here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinkprm_jax.checkpoint.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    listed,
    stored_as,
)
from thinkprm_jax.checkpoint.names import adapter_name, stored_tensors
from thinkprm_jax.checkpoint.pieces import reading_threads
from thinkprm_jax.checkpoint.safetensors_io import (
    DTYPES,
    SafetensorsFile,
    TensorToWrite,
    write_safetensors,
)
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.fields import Fields, shown
from thinkprm_jax.model.lora import LoraSpec, lora_shapes
from thinkprm_jax.records.files import write_json
from thinkprm_jax.user_files import read_json

# Fields that are read, or that change no number once the matrices are there (in which maps and layers they are is
# said by their names, how they began is history). Any other field that is in use is refused.
_HARMLESS = frozenset((
    "auto_mapping", "base_model_name_or_path", "bias", "eva_config", "exclude_modules", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "revision", "runtime_config", "target_modules",
    "task_type", "use_rslora",
))  # fmt: skip
_MOST_ALPHA = 1e9
# Initialisations that leave the base as it is; others (pissa, olora, corda, loftq, ...) change its weights.
_KEEP_BASE = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class AdapterConfig:
    """What we read of adapter_config.json."""

    base: str  # the base model's folder or Hugging Face id
    rank: int
    scale: float  # of A B


@dataclass(frozen=True)
class Adapter:
    """Float32 A [in, r] and B [r, out] by the dotted path of their linear map, such as layers.3.mlp.up."""

    scale: float
    matrices: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def add_to(self, kernel: np.ndarray, path: str, index: Sequence[slice]) -> None:
        """Adds scale A B, in place.

        Args:
          kernel: float32, the piece ``index`` of the kernel [in, out], in any memory order.
          path: of the kernel; a map without adapter stays as it is.
        """
        found = self.matrices.get(path.removesuffix(".kernel"))
        if found is None:
            return
        a, b = found[0][index[0]] * np.float32(self.scale), found[1][:, index[1]]
        if kernel.flags.c_contiguous:
            kernel += a @ b
        else:  # a stored tensor seen from its other side
            kernel.T[...] += b.T @ a.T


def is_adapter(folder: Path) -> bool:
    """Raises `UserError` for a folder with both an adapter and a whole model: it does not say which is meant."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return False
    if (folder / CONFIG).is_file() and any(folder.glob("model*.safetensors")):
        raise UserError(f"{folder}: holds both a model and an adapter; move one of them to another folder")
    return True


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The base and the scale of the adapter in ``folder``.

    Raises:
      UserError: it is of another kind; names the fields.
    """
    path = folder / ADAPTER_CONFIG
    content = read_json(path)
    if content.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type {shown(content.get('peft_type'))} is not supported (we have: 'LORA')")
    wrong = {name for name, value in content.items() if name not in _HARMLESS and value}
    if content.get("bias", "none") != "none":
        wrong.add("bias")
    if content.get("init_lora_weights", True) not in _KEEP_BASE:
        wrong.add("init_lora_weights")
    if content.get("revision") not in (None, "", "main"):
        wrong.add("revision")
    if wrong:
        found = listed([f"{name} = {shown(content[name])}" for name in sorted(wrong)])
        raise UserError(f"{path}: not supported: {found}")
    base = content.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base_model_name_or_path is missing; name the base model's folder or id there")
    fields = Fields(content, str(path))
    rank, alpha = fields.whole("r"), fields.number("lora_alpha", least=-_MOST_ALPHA, most=_MOST_ALPHA)
    return AdapterConfig(base, rank, alpha / (math.sqrt(rank) if fields.flag("use_rslora") else rank))


def read_adapter(folder: Path, found: AdapterConfig, config: ModelConfig) -> Adapter:
    """The matrices of the adapter in ``folder``, for a base of ``config``.

    Raises:
      UserError: one line with every tensor that does not fit.
    """
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        old = (folder / "adapter_model.bin").is_file()
        hint = " (its adapter_model.bin is not read: save it again as safetensors)" if old else ""
        raise UserError(f"{folder}: holds no {ADAPTER_WEIGHTS}{hint}")
    file = SafetensorsFile(path)
    places = _places(config, LoraSpec(found.rank, alpha=0.0))
    present = {name: place for name, place in places.items() if name in file.tensors}
    maps = {_module(path) for path, _ in present.values()}
    missing = [name for name, (path, _) in places.items() if _module(path) in maps and name not in present]
    shaped = [
        f"{name} {list(file.tensors[name].shape)} instead of {list(shape[::-1])}"
        for name, (_, shape) in present.items()
        if file.tensors[name].shape != shape[::-1]
    ]
    typed = [f"{name} {info.dtype}" for name, info in file.tensors.items() if info.dtype not in DTYPES]
    groups = (
        ("missing", missing),
        ("not a linear map of this base's layers", sorted(set(file.tensors) - set(places))),
        ("wrong shape", shaped),
        (f"stored in a dtype that is not one of {', '.join(DTYPES)}", typed),
    )
    problems = [f"{title}: {listed(names)}" for title, names in groups if names]
    if problems or not present:
        raise UserError(f"{path}: does not fit its base; {'; '.join(problems) or 'it holds no matrices'}")
    with reading_threads() as pool:
        arrays = {
            path: file.read(name, tuple(slice(size) for size in shape), True, np.dtype(np.float32), pool)
            for name, (path, shape) in present.items()
        }
    return adapter_of(arrays, found.scale)


def adapter_of(arrays: Mapping[str, np.ndarray], scale: float) -> Adapter:
    """``arrays``: by the trainer's paths, ``layers.3.mlp.up.lora_a`` [in, r] and ``...lora_b`` [r, out]."""
    paths = [path.removesuffix(".lora_a") for path in arrays if path.endswith(".lora_a")]
    return Adapter(scale, {path: (arrays[f"{path}.lora_a"], arrays[f"{path}.lora_b"]) for path in paths})


def write_adapter(
    folder: Path, adapter: Adapter, spec: LoraSpec, config: ModelConfig, base: str, dtype: np.dtype
) -> None:
    """adapter_config.json and adapter_model.safetensors, which peft loads onto the model ``base``."""
    weights = []
    for name, (path, shape) in _places(config, spec).items():
        array = adapter.matrices[_module(path)][0 if path.endswith(".lora_a") else 1]
        fetch = functools.partial(stored_as, name, array.T, dtype)
        weights.append(TensorToWrite(name, shape[::-1], dtype, fetch))
    write_safetensors(folder / ADAPTER_WEIGHTS, weights, {"format": "pt"})
    write_json(folder / ADAPTER_CONFIG, _peft_config(spec, base))


def _places(config: ModelConfig, spec: LoraSpec) -> dict[str, tuple[str, tuple[int, int]]]:
    """peft's tensor name -> our path and shape (the transpose of what is stored)."""
    kernels = {tensor.path: tensor for tensor in stored_tensors(config)}
    places = {}
    for path, shape in lora_shapes(config, spec).items():
        matrix = path.removeprefix(f"{_module(path)}.")
        places[adapter_name(kernels[f"{_module(path)}.kernel"], matrix)] = (path, shape)
    return places


def _module(path: str) -> str:
    """The linear map of an adapter matrix."""
    return path.rpartition(".")[0]


def _peft_config(spec: LoraSpec, base: str) -> dict[str, Any]:
    """The fields that peft has had since adapters are safetensors; it fills in its defaults for the others."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": spec.rank,
        "lora_alpha": int(spec.alpha) if float(spec.alpha).is_integer() else spec.alpha,
        "lora_dropout": spec.dropout,
        "target_modules": list(spec.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
