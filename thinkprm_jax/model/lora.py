"""Low-rank adapters (LoRA, arXiv 2106.09685) with peft's arithmetic: y = x W + b + (alpha / rank) drop(x) A B."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from thinkprm_jax.model.config import ModelConfig

# The linear maps of a layer: Hugging Face name -> path inside the layer.
HF_TARGETS = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "attention.output",
    "gate_proj": "mlp.gate",
    "up_proj": "mlp.up",
    "down_proj": "mlp.down",
}


@dataclass(frozen=True)
class LoraSpec:
    """targets: keys of ``HF_TARGETS``; the named maps of every layer get an adapter."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = tuple(HF_TARGETS)
    dropout: float = 0.0  # of the inputs of A, while training

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def paths(self) -> tuple[str, ...]:
        """The targets as paths inside a layer."""
        return tuple(HF_TARGETS[target] for target in self.targets)


def lora_shapes(config: ModelConfig, spec: LoraSpec) -> dict[str, tuple[int, int]]:
    """Shape of every adapter matrix by its dotted path: ``lora_a`` [in, rank], ``lora_b`` [rank, out]."""
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    sizes = {
        "attention.query": (config.hidden_size, heads),
        "attention.key": (config.hidden_size, kv_heads),
        "attention.value": (config.hidden_size, kv_heads),
        "attention.output": (heads, config.hidden_size),
        "mlp.gate": (config.hidden_size, config.intermediate_size),
        "mlp.up": (config.hidden_size, config.intermediate_size),
        "mlp.down": (config.intermediate_size, config.hidden_size),
    }
    shapes = {}
    for layer in range(config.num_layers):
        for path in spec.paths:
            inputs, outputs = sizes[path]
            shapes[f"layers.{layer}.{path}.lora_a"] = (inputs, spec.rank)
            shapes[f"layers.{layer}.{path}.lora_b"] = (spec.rank, outputs)
    return shapes


def init_lora(config: ModelConfig, spec: LoraSpec, seed: int) -> dict[str, jax.Array]:
    """Float32 adapters that change nothing yet: A uniform within 1 / sqrt(in) (peft's Kaiming rule), B zero."""
    params = {}
    for number, (name, shape) in enumerate(lora_shapes(config, spec).items()):
        if name.endswith("lora_a"):
            bound = 1 / math.sqrt(shape[0])
            key = jax.random.fold_in(jax.random.key(seed), number)
            params[name] = jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        else:
            params[name] = jnp.zeros(shape, jnp.float32)
    return params
