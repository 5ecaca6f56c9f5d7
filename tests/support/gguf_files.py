"""GGUF files for tests, written by the package gguf from random transformers models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers import pre_tokenizers

if TYPE_CHECKING:  # it takes seconds to import
    import transformers

# What llama.cpp writes for the parameters of Hugging Face's Llama, Qwen2 and Qwen3.
NAMES = {
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
# Blocks of these have scales in float16, their other bytes may be anything: (bytes before them, how many).
SCALES = {Kind.Q2_K: (80, 2), Kind.Q3_K: (108, 1), Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q6_K: (208, 1)}
WORDS = ["the", "answer", "is", "Yes", "No", "step", "correct", "12"]
CONTROL = ["<|end|>", "<|user|>"]
Stored = dict[str, tuple[np.ndarray, Kind]]  # of a file: name -> bytes or numbers, kind


def quantise(array: np.ndarray, kind: Kind, seed: int = 0) -> np.ndarray:
    """The rows of ``array`` as a file has them; of the kinds that the package cannot make, random blocks of about
    the same size of numbers."""
    if kind not in SCALES:
        return gguf.quantize(np.ascontiguousarray(array, np.float32), kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(seed).integers(0, 256, (array.size // block, size), dtype=np.uint8)
    begin, count = SCALES[kind]
    scales = blocks[:, begin : begin + 2 * count]
    scales[...] = np.full((len(blocks), count), 1.0, np.float16).view(np.uint8)
    ratio = array.std() / gguf.dequantize(blocks, kind).std()
    scales[...] = np.full((len(blocks), count), ratio, np.float16).view(np.uint8)
    return blocks.reshape(array.shape[0], -1)


def name_of(name: str) -> str:
    """llama.cpp's name of a parameter of a Hugging Face model."""
    parts = name.split(".")
    kind, module = parts[-1], NAMES.get(parts[-2], parts[-2])
    if module == "norm":
        return f"output_norm.{kind}"
    return f"blk.{parts[2]}.{module}.{kind}" if parts[1] == "layers" else f"{module}.{kind}"


def permuted(array: np.ndarray, heads: int) -> np.ndarray:
    """The rows of Llama's query and key maps as llama.cpp's converter leaves them."""
    return (
        array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    )


def tensors_of(model: transformers.PreTrainedModel, kinds: Mapping[str, Kind] | None = None) -> Stored:
    """The parameters of a model; ``kinds`` by llama.cpp's module (``attn_q``), float32 where it says nothing."""
    config, stored = model.config, {}
    for place, (name, parameter) in enumerate(model.named_parameters()):
        array = parameter.detach().float().numpy()
        theirs = name_of(name)
        if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
            array = permuted(
                array, config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            )
        kind = (kinds or {}).get(theirs.split(".")[-2], Kind.F32) if array.ndim == 2 else Kind.F32
        stored[theirs] = quantise(array, kind, place), kind
    return stored


def vocabulary(size: int) -> tuple[list[str], list[int], list[str]]:
    """(tokens, kinds of tokens, merges): bytes, a few words, control tokens, and unused ids up to ``size``."""
    tokens, merges = sorted(pre_tokenizers.ByteLevel.alphabet()), []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens:
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
                tokens.append(word[:end])
    kinds = [1] * len(tokens) + [3] * len(CONTROL)
    tokens += CONTROL
    unused = size - len(tokens)
    return tokens + [f"[PAD{len(tokens) + n}]" for n in range(unused)], kinds + [5] * unused, merges


def write(
    path: Path, model: transformers.PreTrainedModel, stored: Stored | None = None, pre: str = "qwen2", **extra: Any
) -> Path:
    """A file of the model with a small tokenizer. extra: metadata; None takes a key away."""
    config = model.config
    family = config.model_type
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    metadata = {
        f"{family}.block_count": config.num_hidden_layers,
        f"{family}.context_length": config.max_position_embeddings,
        f"{family}.embedding_length": config.hidden_size,
        f"{family}.feed_forward_length": config.intermediate_size,
        f"{family}.attention.head_count": config.num_attention_heads,
        f"{family}.attention.head_count_kv": config.num_key_value_heads,
        f"{family}.attention.key_length": width,
        f"{family}.attention.value_length": width,
        f"{family}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{family}.rope.freq_base": config.rope_parameters["rope_theta"],
        f"{family}.rope.dimension_count": width,
    }
    tokens, kinds, merges = vocabulary(config.vocab_size)
    metadata |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": tokens.index(CONTROL[0]),
        "tokenizer.chat_template": "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}",
    }
    architecture = extra.pop("general.architecture", family)
    return write_raw(path, architecture, {**metadata, **extra}, tensors_of(model) if stored is None else stored)


def write_raw(path: Path, architecture: str, metadata: Mapping[str, Any], stored: Stored) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    for name, (array, kind) in stored.items():
        writer.add_tensor(name, array, raw_dtype=kind if array.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
