"""Logits in float64: what float32 logits, ours and others', are held against.

Two programs that add the same float32 numbers in another order differ in the last digits. Whether one of them is
less exact than it should be is seen only against the same formulas in more digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

_TOKENS_OF_HEAD = 2**14  # of the vocabulary at a time: the whole head would take gigabytes in float64


def exact_logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The logits of every position of each prompt.

    Layer by layer for all prompts, so that no more than a layer is there in float64.

    Args:
      model: of transformers, Qwen2, Qwen3 or Llama, whose float32 weights are taken for exact; its code is not
        used, since it computes norms, rotations and softmax in float32 whatever the weights are.
    Returns: float64 [tokens, vocabulary] for each prompt.
    """
    config = model.config
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"rotations of type {rope['rope_type']} are not computed in float64 here")
    with torch.inference_mode():
        embedding = model.get_input_embeddings().weight
        states = [embedding[torch.tensor(ids)].double() for ids in prompts]
        for layer in model.model.layers:
            weights = {name: parameter.double() for name, parameter in layer.named_parameters()}
            states = [_layer(x, weights, config, float(rope["rope_theta"])) for x in states]
        states = [_norm(x, model.model.norm.weight.double(), config.rms_norm_eps) for x in states]
        logits: list[list[torch.Tensor]] = [[] for _ in prompts]
        for part in model.get_output_embeddings().weight.split(_TOKENS_OF_HEAD):
            columns = part.double().T
            for found, x in zip(logits, states, strict=True):
                found.append(x @ columns)
        return [torch.cat(found, dim=1).numpy() for found in logits]


def _layer(x: torch.Tensor, weights: Mapping[str, torch.Tensor], config: Any, theta: float) -> torch.Tensor:
    """float64 [T, D] -> the same, behind one block."""
    inside = _norm(x, weights["input_layernorm.weight"], config.rms_norm_eps)
    x = x + _attention(inside, weights, config, theta)
    inside = _norm(x, weights["post_attention_layernorm.weight"], config.rms_norm_eps)
    gate = torch.nn.functional.silu(_linear(inside, weights, "mlp.gate_proj"))
    return x + _linear(gate * _linear(inside, weights, "mlp.up_proj"), weights, "mlp.down_proj")


def _attention(x: torch.Tensor, weights: Mapping[str, torch.Tensor], config: Any, theta: float) -> torch.Tensor:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    q, k, v = (
        _linear(x, weights, f"self_attn.{name}_proj").reshape(len(x), -1, width).swapaxes(0, 1) for name in "qkv"
    )  # [heads, T, width]
    if "self_attn.q_norm.weight" in weights:
        q = _norm(q, weights["self_attn.q_norm.weight"], config.rms_norm_eps)
        k = _norm(k, weights["self_attn.k_norm.weight"], config.rms_norm_eps)
    group = heads // config.num_key_value_heads
    k, v = _rotate(k, theta).repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = _rotate(q, theta) @ k.mT / width**0.5
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
    return _linear(mixed.swapaxes(0, 1).reshape(len(x), -1), weights, "self_attn.o_proj")


def _linear(x: torch.Tensor, weights: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    y = x @ weights[f"{name}.weight"].T
    bias = weights.get(f"{name}.bias")
    return y if bias is None else y + bias


def _norm(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * scale


def _rotate(x: torch.Tensor, theta: float) -> torch.Tensor:
    """[heads, T, width], the pairs (i, i + width/2) turned by the position."""
    pairs = x.shape[-1] // 2
    frequencies = theta ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * frequencies
    first, second = x[..., :pairs], x[..., pairs:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
