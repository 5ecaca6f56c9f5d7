"""Random packed weights, each with the numbers that it stands for, computed one by one as published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from safetensors.torch import load_file, save_file

# (outputs, inputs, generator) -> (parts by suffix, float32 [out, in])
Packer = Callable[[int, int, np.random.Generator], tuple[dict[str, torch.Tensor], np.ndarray]]
GROUP = 8
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight outputs each half byte of a word holds
NF4 = np.sort(np.random.default_rng(1).uniform(-1, 1, 16)).astype(np.float32)  # a table is a table


def words(values: np.ndarray, bits: int, axis: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """int32: ``values`` by 32 / bits along an axis, the lowest bits first."""
    count = 32 // bits
    values = values if axis else values.T
    packed = np.zeros((values.shape[0], values.shape[1] // count), np.uint32)
    for place, column in enumerate(order or range(count)):
        packed |= values[:, column::count].astype(np.uint32) << np.uint32(bits * place)
    return torch.from_numpy((packed if axis else packed.T).copy().view(np.int32))


def integers(rng: np.random.Generator, shape: tuple[int, int], bits: int) -> np.ndarray:
    return rng.integers(0, 2**bits, shape)


def scales(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.uniform(0.01, 0.05, shape).astype(np.float16)


def pack_awq(outputs: int, inputs: int, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    quantised, zeros = integers(rng, (inputs, outputs), 4), integers(rng, (inputs // GROUP, outputs), 4)
    scale = scales(rng, zeros.shape)
    dense = np.empty((outputs, inputs), np.float32)
    for i in range(inputs):
        dense[:, i] = (quantised[i] - zeros[i // GROUP]) * scale[i // GROUP].astype(np.float32)
    parts = {"qweight": words(quantised, 4, 1, AWQ_ORDER), "qzeros": words(zeros, 4, 1, AWQ_ORDER)}
    return {**parts, "scales": torch.from_numpy(scale)}, dense


def gptq(bits: int, ordered: bool, version: int = 1) -> Packer:
    def pack(outputs: int, inputs: int, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        groups = inputs // GROUP
        quantised, zeros = integers(rng, (inputs, outputs), bits), integers(rng, (groups, outputs), bits)
        scale = scales(rng, zeros.shape)
        order = rng.permutation(np.arange(inputs) // GROUP) if ordered else np.arange(inputs) // GROUP
        dense = np.empty((outputs, inputs), np.float32)
        for i in range(inputs):
            dense[:, i] = (quantised[i] - zeros[order[i]]) * scale[order[i]].astype(np.float32)
        zero_words = words(zeros, bits, 1)
        if version == 1:  # GPTQModel takes this from the words of the second version
            one = sum(1 << shift for shift in range(0, 32, bits))
            zero_words = torch.from_numpy((zero_words.numpy().view(np.uint32) - np.uint32(one)).view(np.int32))
        parts = {"qweight": words(quantised, bits, 0), "qzeros": zero_words, "scales": torch.from_numpy(scale)}
        if ordered:
            parts["g_idx"] = torch.from_numpy(order.astype(np.int32))
        return parts, dense

    return pack


def fp8(kind: str, block: tuple[int, int] = (8, 16)) -> Packer:
    """kind: block, tensor or channel."""

    def pack(outputs: int, inputs: int, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        small = rng.uniform(-400, 400, (outputs, inputs)).astype(ml_dtypes.float8_e4m3fn)
        shape = {
            "block": (-(-outputs // block[0]), -(-inputs // block[1])),
            "channel": (outputs, 1),
            "tensor": (1, 1),
        }
        scale = rng.uniform(1e-4, 1e-3, shape[kind]).astype(np.float32)
        dense = np.empty((outputs, inputs), np.float32)
        for o in range(outputs):
            for i in range(inputs):
                place = {"block": (o // block[0], i // block[1]), "channel": (o, 0), "tensor": (0, 0)}[kind]
                dense[o, i] = np.float32(small[o, i]) * scale[place]
        name = "weight_scale_inv" if kind == "block" else "weight_scale"
        kept = torch.from_numpy(scale if kind != "tensor" else scale.reshape(()))
        weight = torch.from_numpy(small.view(np.uint8)).view(torch.float8_e4m3fn)
        return {"weight": weight, name: kept, "input_scale": torch.tensor(1.0)}, dense

    return pack


def packed_words(bits: int, asymmetric: bool) -> Packer:
    """compressed-tensors' pack-quantized."""

    def pack(outputs: int, inputs: int, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        quantised = integers(rng, (outputs, inputs), bits)
        zeros = (
            integers(rng, (outputs, inputs // GROUP), bits)
            if asymmetric
            else np.full((outputs, 1), 2 ** (bits - 1))
        )
        scale = scales(rng, (outputs, inputs // GROUP))
        dense = np.empty((outputs, inputs), np.float32)
        for i in range(inputs):
            zero = zeros[:, i // GROUP if asymmetric else 0]
            dense[:, i] = (quantised[:, i] - zero) * scale[:, i // GROUP].astype(np.float32)
        parts = {"weight_packed": words(quantised, bits, 1), "weight_scale": torch.from_numpy(scale)}
        parts["weight_shape"] = torch.tensor([outputs, inputs])
        if asymmetric:
            parts["weight_zero_point"] = words(zeros, bits, 0)
        return parts, dense

    return pack


def pack_int8(outputs: int, inputs: int, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    numbers, scale = (
        rng.integers(-128, 128, (outputs, inputs)),
        rng.uniform(1e-3, 1e-2, (outputs, 1)).astype(np.float32),
    )
    dense = numbers.astype(np.float32) * scale
    return {"weight": torch.from_numpy(numbers.astype(np.int8)), "weight_scale": torch.from_numpy(scale)}, dense


def pack_llm_int8(
    outputs: int, inputs: int, rng: np.random.Generator
) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    numbers, largest = rng.integers(-127, 128, (outputs, inputs)), rng.uniform(0.1, 1, outputs).astype(np.float32)
    dense = numbers.astype(np.float32) * (largest / np.float32(127))[:, None]
    weight = torch.from_numpy(numbers.astype(np.int8))
    return {
        "weight": weight,
        "SCB": torch.from_numpy(largest),
        "weight_format": torch.tensor(0, dtype=torch.uint8),
    }, dense


def nf4(nested: bool) -> Packer:
    def pack(outputs: int, inputs: int, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        block, of_blocks, offset = 16, 4, 0.02
        places = rng.integers(0, 16, outputs * inputs)
        blocks = -(-len(places) // block)
        state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": [outputs, inputs]}
        parts = {"weight": torch.from_numpy((places[::2] * 16 + places[1::2]).astype(np.uint8))[:, None]}
        parts["weight.quant_map"] = torch.from_numpy(NF4.copy())
        if nested:
            state |= {"nested_blocksize": of_blocks, "nested_dtype": "float32", "nested_offset": offset}
            table = np.sort(rng.uniform(0, 1, 256)).astype(np.float32)
            kept = rng.integers(0, 256, blocks)
            outer = rng.uniform(0.01, 0.1, -(-blocks // of_blocks)).astype(np.float32)
            largest = np.array(
                [table[kept[b]] * outer[b // of_blocks] + np.float32(offset) for b in range(blocks)]
            )
            parts["weight.absmax"] = torch.from_numpy(kept.astype(np.uint8))
            parts["weight.nested_absmax"] = torch.from_numpy(outer)
            parts["weight.nested_quant_map"] = torch.from_numpy(table)
        else:
            largest = rng.uniform(0.01, 0.1, blocks).astype(np.float32)
            parts["weight.absmax"] = torch.from_numpy(largest)
        text = json.dumps(state).encode()
        parts["weight.quant_state.bitsandbytes__nf4"] = torch.from_numpy(np.frombuffer(text, np.uint8).copy())
        dense = np.array(
            [NF4[place] * largest[number // block] for number, place in enumerate(places)], np.float32
        )
        return parts, dense.reshape(outputs, inputs)

    return pack


def pack_folder(plain: Path, folder: Path, pack: Packer, settings: dict[str, object], seed: int = 0) -> Path:
    """A packed model in ``folder``; the weights of ``plain`` become those that it stands for."""
    rng = np.random.default_rng(seed)
    dense, packed = load_file(plain / "model.safetensors"), {}
    for name, tensor in list(dense.items()):
        unit = 16 if settings.get("bits") == 2 else 8  # a word holds so many
        if not name.endswith("_proj.weight") or any(size % unit for size in tensor.shape):
            packed[name] = tensor
            continue
        parts, numbers = pack(*tensor.shape, rng)
        packed |= {f"{name.removesuffix('.weight')}.{part}": value.contiguous() for part, value in parts.items()}
        dense[name] = torch.from_numpy(numbers)
    folder.mkdir()
    for file in plain.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    save_file(dense, plain / "model.safetensors", {"format": "pt"})
    save_file(packed, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    return folder
