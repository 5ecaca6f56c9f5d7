"""The metadata of a GGUF file as the config.json that the model would have in a Hugging Face folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thinkprm_jax.checkpoint.formats.gguf import read_rope_factors
from thinkprm_jax.errors import UserError
from thinkprm_jax.gguf_header import parts_of, read_header

ARCHITECTURES = ("llama", "qwen2", "qwen3")
# What these architectures can have elsewhere and we do not, with the values that mean "not in use".
_MUST_BE = {
    "expert_count": (None, 0),
    "attention.sliding_window": (None, 0),
    "attention.scale": (None, 0.0),
    "attention.clamp_kqv": (None, 0.0),
    "attention.causal": (None, True),
    "logit_scale": (None, 0.0, 1.0),
    "residual_scale": (None, 0.0, 1.0),
    "embedding_scale": (None, 0.0, 1.0),
    "rope.scaling.attn_factor": (None, 1.0),
    "pooling_type": (None, 0),
}
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Llama 3.1 to 3.3, the only ones with factors for the rotation: what config.json says beside the largest.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def read_gguf_config(path: Path) -> dict[str, Any]:
    """What config.json would hold, for `ModelConfig.from_hf`.

    Raises:
      UserError: the file is damaged or of an architecture that we do not have, or a value is missing (named).
    """
    headers = [read_header(part) for part in parts_of(path)]
    metadata = headers[0].metadata
    architecture = metadata.get("general.architecture")
    if metadata.get("general.type", "model") != "model":
        raise UserError(f"{path}: holds no model: its general.type is {metadata['general.type']!r}")
    if architecture not in ARCHITECTURES:
        have = ", ".join(ARCHITECTURES)
        raise UserError(f"{path}: general.architecture {architecture!r} is not supported (we have: {have})")
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    for key, allowed in _MUST_BE.items():
        if own.get(key) not in allowed:
            raise UserError(f"{path}: {architecture}.{key} = {own[key]!r} is not supported")
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    if "token_embd.weight" not in tensors:
        raise UserError(f"{path}: holds no token_embd.weight: it is no whole model")
    try:
        heads, hidden = _whole(own, "attention.head_count"), _whole(own, "embedding_length")
        head_dim = _whole(own, "attention.key_length", hidden // max(heads, 1))
        config = {
            "model_type": architecture,
            "vocab_size": tensors["token_embd.weight"].shape[0],
            "hidden_size": hidden,
            "intermediate_size": _whole(own, "feed_forward_length"),
            "num_hidden_layers": _whole(own, "block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": _whole(own, "attention.head_count_kv", heads),
            "head_dim": head_dim,
            "rms_norm_eps": _number(own, "attention.layer_norm_rms_epsilon"),
            "rope_theta": _number(own, "rope.freq_base", 10_000.0),
            "max_position_embeddings": _whole(own, "context_length"),
            "tie_word_embeddings": "output.weight" not in tensors,
            "attention_bias": "blk.0.attn_q.bias" in tensors,
            "mlp_bias": "blk.0.ffn_up.bias" in tensors,
            "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": _ends(metadata),
        }
        for key in ("attention.value_length", "rope.dimension_count"):
            if _whole(own, key, head_dim) != head_dim:
                raise ValueError(f"{key} {own[key]} is another than the width of a head, {head_dim}")
        scaling = _rope_scaling(own, path, head_dim, config["rope_theta"])
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {architecture}.{error}") from None
    return config if scaling is None else {**config, "rope_scaling": scaling}


def _whole(own: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = own.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} is {'missing' if value is None else f'{value!r:.60}, no whole number'}")
    return value


def _number(own: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = own.get(key, default)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{key} is {'missing' if value is None else f'{value!r:.60}, no number'}")
    # Stored in 32 bits: 1e-06 is the number that was meant by 9.99999997e-07.
    return float(str(np.float32(value)))


def _ends(metadata: Mapping[str, Any]) -> list[int] | None:
    """Every id that ends a turn."""
    ids = [metadata.get(f"tokenizer.ggml.{key}") for key in _END_KEYS]
    return list(dict.fromkeys(id for id in ids if isinstance(id, int))) or None


def _rope_scaling(own: Mapping[str, Any], path: Path, head_dim: int, theta: float) -> dict[str, Any] | None:
    factors = read_rope_factors(path)
    if factors is not None:
        return _llama3_scaling(factors, head_dim, theta)
    kind = own.get("rope.scaling.type", "linear" if "rope.scale_linear" in own else "none")
    if kind == "none":
        return None
    scaling: dict[str, Any] = {"rope_type": kind}
    scaling["factor"] = _number(own, "rope.scaling.factor", own.get("rope.scale_linear"))
    if kind == "linear":
        return scaling if scaling["factor"] != 1.0 else None
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = _whole(own, "rope.scaling.original_context_length")
        for name in ("beta_fast", "beta_slow"):
            if f"rope.scaling.yarn_{name}" in own:
                scaling[name] = _number(own, f"rope.scaling.yarn_{name}")
        return scaling
    raise ValueError(f"rope.scaling.type {kind!r} is not supported (we have: none, linear, yarn)")


def _llama3_scaling(factors: np.ndarray, head_dim: int, theta: float) -> dict[str, Any] | None:
    """The numbers of config.json from which llama.cpp computed these factors: from those that Llama 3 models have
    they are computed again, and have to come out the same."""
    if np.all(factors == 1):
        return None
    if factors.shape != (head_dim // 2,):
        raise ValueError(f"rope_freqs.weight has {factors.size} factors, for heads that are {head_dim} wide")
    largest, low, high = float(factors.max()), _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    with np.errstate(all="ignore"):  # theta or a factor may be 0: then nothing comes out the same
        angles = theta ** -(np.arange(0, head_dim, 2) / head_dim)
        turns = _LLAMA3["original_max_position_embeddings"] * angles / (2 * np.pi)
        smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
        expected = 1 / ((1 - smooth) / largest + smooth)
    if not np.allclose(factors, expected, rtol=1e-4):
        raise ValueError("rope_freqs.weight scales the rotation in another way than Llama 3.1 does: not supported")
    return {"rope_type": "llama3", "factor": largest, **_LLAMA3}
