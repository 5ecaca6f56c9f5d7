"""Damage to GGUF files: what their headers count, measure, name and place becomes something else."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind

from support import gguf_files

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_TEXT = "text"  # in place of a struct format: a length and so many bytes
_FLOATS = (0.0, -1.0, 1e-38, 3e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    b"", b"x", b"x" * 100_000, b"\xff\xfe", b"\x00", "Ġ".encode(), b"gpt2", b"llama", b"qwen2", b"qwen3", b"mamba",
    b"yarn", b"linear", b"none", b"default", b"general.alignment", b"token_embd.weight", b"rope_freqs.weight",
    b"blk.9999999999.attn_q.weight", b"{{ a", b"{{ 'x' * 99999999 }}", b"{% for m in messages %}",
    b"{% for i in range(10**9) %}{% endfor %}", b"{{ raise_exception('no') }}",
)  # fmt: skip


def damage(content: bytes, draw: random.Random) -> bytes | None:
    """``content`` with another number or text at one place of its header; None: it has none any more."""
    sites = _sites(content)
    if not sites:
        return None
    # Almost all sites are tokens: half of the time one of the others.
    others = [site for site in sites if site[1] != _TEXT]
    place, form = draw.choice(others if others and draw.random() < 0.7 else sites)
    if form == _TEXT:
        (length,) = struct.unpack_from("<Q", content, place)
        text = draw.choice(_TEXTS)
        return content[:place] + struct.pack("<Q", len(text)) + text + content[place + 8 + length :]
    size = struct.calcsize(form)
    return content[:place] + _number(form, content[place : place + size], draw) + content[place + size :]


def _number(form: str, before: bytes, draw: random.Random) -> bytes:
    if form in ("<f", "<d"):
        return struct.pack(form, draw.choice(_FLOATS))
    bits = 8 * struct.calcsize(form)
    (value,) = struct.unpack(form, before)
    ends = (0, 1, 2, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1, 2 ** (bits // 2), 10**6, 2**20 + 1)
    near = (value + 1, value - 1, 2 * value, value // 2, draw.randrange(64))
    return (draw.choice((*ends, *near)) % 2**bits).to_bytes(bits // 8, "little")


def _sites(content: bytes) -> list[tuple[int, str]]:
    """Where numbers and texts of the header stand, as far as it can be followed."""
    sites: list[tuple[int, str]] = []
    place = 4

    def number(form: str) -> Any:
        nonlocal place
        (value,) = struct.unpack_from(form, content, place)
        sites.append((place, form))
        place += struct.calcsize(form)
        return value

    def text() -> None:
        nonlocal place
        (length,) = struct.unpack_from("<Q", content, place)
        if place + 8 + length > len(content):
            raise IndexError
        sites.extend(((place, "<Q"), (place, _TEXT)))
        place += 8 + length

    def value(kind: int) -> None:
        nonlocal place
        if kind == _STRING:
            text()
        elif kind == _ARRAY:
            kind, count = number("<I"), number("<Q")
            if kind != _STRING:
                place += struct.calcsize(_NUMBERS[kind]) * count
                return
            for _ in range(count):
                text()
        else:
            number(_NUMBERS[kind])

    try:
        number("<I")
        tensors, keys = number("<Q"), number("<Q")
        for _ in range(keys):
            text()
            value(number("<I"))
        for _ in range(tensors):
            text()
            for _ in range(number("<I")):
                number("<Q")
            number("<I")
            number("<Q")
    except (struct.error, IndexError, KeyError):
        pass  # damaged before
    return sites


def write_file(path: Path, family: str) -> Path:
    """A small model: Qwen2's tokenizer is byte-level, Llama's of sentencepiece."""
    width, wide, vocabulary, rng = 32, 64, 320, np.random.default_rng(0)
    metadata: dict[str, Any] = {
        f"{family}.{key}": value
        for key, value in {
            "block_count": 1, "context_length": 512, "embedding_length": width, "feed_forward_length": wide,
            "attention.head_count": 2, "attention.head_count_kv": 1, "rope.dimension_count": width // 2,
            "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e4,
        }.items()
    }  # fmt: skip
    shapes = {
        "token_embd": (vocabulary, width), "blk.0.attn_q": (width, width), "blk.0.attn_k": (width // 2, width),
        "blk.0.attn_v": (width // 2, width), "blk.0.attn_output": (width, width), "blk.0.ffn_gate": (wide, width),
        "blk.0.ffn_up": (wide, width), "blk.0.ffn_down": (width, wide),
    }  # fmt: skip
    kinds = dict(zip(shapes, (Kind.Q8_0, Kind.F16, Kind.Q4_0, Kind.F32, Kind.Q5_1), strict=False))
    stored: gguf_files.Stored = {}
    for name, shape in shapes.items():
        kind = kinds.get(name, Kind.Q8_0)
        stored[f"{name}.weight"] = gguf_files.quantise(rng.normal(0, 0.2, shape).astype(np.float32), kind), kind
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        stored[f"{name}.weight"] = np.ones(width, np.float32), Kind.F32
    if family == "qwen2":
        for name, size in (("q", width), ("k", width // 2), ("v", width // 2)):
            stored[f"blk.0.attn_{name}.bias"] = np.zeros(size, np.float32), Kind.F32
    else:
        stored["rope_freqs.weight"] = _llama3_factors(width // 2), Kind.F32
    metadata |= _byte_level(vocabulary) if family == "qwen2" else _pieces(vocabulary)
    metadata["tokenizer.chat_template"] = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    return gguf_files.write_raw(path, family, metadata, stored)


def _llama3_factors(width: int) -> np.ndarray:
    """Of Llama 3.1 with a factor of 8."""
    turns = 8192 * 1e4 ** -(np.arange(0, width, 2) / width) / (2 * np.pi)
    kept = np.clip((turns - 1) / 3, 0, 1)
    return (1 / ((1 - kept) / 8 + kept)).astype(np.float32)


def _byte_level(size: int) -> dict[str, Any]:
    tokens, kinds, merges = gguf_files.vocabulary(size)
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": tokens.index(gguf_files.CONTROL[0]),
    }  # fmt: skip


def _pieces(size: int) -> dict[str, Any]:
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "a",
        "b",
        "▁a",
        "ab",
        "▁ab",
    ]
    kinds = [2, 3, 3, *[6] * 256, *[1] * 6]
    tokens += [f"[unused{number}]" for number in range(size - len(tokens))]
    kinds += [5] * (size - len(kinds))
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [float(-number) for number in range(size)], "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
    }  # fmt: skip
