"""Folders whose weights are packed, of numbers without a meaning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

GROUP = 16
Parts = dict[str, np.ndarray]  # by suffix


def make(folder: Path, plain: Path) -> dict[str, Path]:
    """A folder below ``folder`` for each way of packing, with the configuration and the tokenizer of ``plain``."""
    found = {}
    for method, (pack, settings) in _METHODS.items():
        found[method] = target = folder / method
        shutil.copytree(plain, target)
        tensors: Parts = {}
        for name, array in safetensors.numpy.load_file(plain / "model.safetensors").items():
            module, _, kind = name.rpartition(".")
            packed = pack(*array.shape) if module.endswith("_proj") and kind == "weight" else {kind: array}
            tensors |= {f"{module}.{suffix}": value for suffix, value in packed.items()}
        safetensors.numpy.save_file(tensors, target / "model.safetensors")
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({"quantization_config": settings, **config}, indent=1))
    return found


def _scales(*shape: int) -> np.ndarray:
    return np.full(shape, 0.01, np.float16)


def _awq(outputs: int, inputs: int) -> Parts:
    return {
        "qweight": np.full((inputs, outputs // 8), 0x12345678, np.int32),
        "qzeros": np.full((inputs // GROUP, outputs // 8), 0x07777777, np.int32),
        "scales": _scales(inputs // GROUP, outputs),
    }


def _gptq(outputs: int, inputs: int) -> Parts:
    return {
        "qweight": np.full((inputs // 8, outputs), 0x12345678, np.int32),
        "qzeros": np.full((inputs // GROUP, outputs // 8), 0x07777777, np.int32),
        "scales": _scales(inputs // GROUP, outputs),
        "g_idx": np.arange(inputs, dtype=np.int32) // GROUP,
    }


def _words(outputs: int, inputs: int) -> Parts:
    return {
        "weight_packed": np.full((outputs, inputs // 8), 0x12345678, np.int32),
        "weight_scale": _scales(outputs, inputs // GROUP),
        "weight_shape": np.array([outputs, inputs]),
        "weight_zero_point": np.full((outputs // 8, inputs // GROUP), 0x07777777, np.int32),
    }


def _int8(outputs: int, inputs: int) -> Parts:
    return {"weight": np.ones((outputs, inputs), np.int8), "weight_scale": np.ones((outputs, 1), np.float32)}


def _nf4(outputs: int, inputs: int) -> Parts:
    state = json.dumps({"shape": [outputs, inputs], "blocksize": 64, "dtype": "float32", "quant_type": "nf4"})
    return {
        "weight": np.ones((outputs * inputs // 2, 1), np.uint8),
        "weight.absmax": np.full(outputs * inputs // 64, 0.1, np.float32),
        "weight.quant_map": np.linspace(-1, 1, 16, dtype=np.float32),
        "weight.quant_state.bitsandbytes__nf4": np.frombuffer(state.encode(), np.uint8),
    }


def _compressed(form: str, bits: int, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"weights": {"num_bits": bits, **weights}, "targets": ["Linear"]}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups}


_METHODS: dict[str, tuple[Callable[[int, int], Parts], dict[str, Any]]] = {
    "awq": (_awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
    "gptq": (_gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "dynamic": {}}),
    "words": (_words, _compressed("pack-quantized", 4, group_size=GROUP)),
    "int8": (_int8, _compressed("int-quantized", 8)),
    "nf4": (_nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
}
