"""How much arithmetic a training step needs, and what share of a device's peak that is (MFU).

Counted is what the model needs, not what the program does (PaLM, arXiv 2204.02311, appendix B), in matrix products
only, a multiplication and an addition being two operations:

    weights     2 a token for every weight of a matrix, forward; 2 for the gradient of its input; 2 for its own,
                where it trains. The embedding table is looked up, not multiplied; a tied one counts as the head.
    attention   12 H h a layer for every pair of a token and a token that it sees (itself included), 4 of them
                forward: half of what PaLM counts, since causal attention needs half of the square, and in packed
                rows only the tokens of the same example

Not counted: padding, rematerialisation, a kernel's own recomputation, masked halves that a kernel computes all the
same, norms, rotations, softmax, loss and optimizer. LoRA: frozen matrices count 4 a token, adapters 6.

    MFU = operations of the steps / (seconds x devices x dense bfloat16 peak of a device)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thinkprm_jax.data.batches import Batch
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.lora import LoraSpec, lora_shapes

TERA = 1e12


@dataclass(frozen=True)
class StepFlops:
    """Operations of a training step: ``token`` for each real token, ``pair`` for each pair of a token and one that
    it sees."""

    token: float
    pair: float

    def of(self, batch: Batch) -> float:
        """Operations of the whole batch, whichever of its rows are here."""
        return self.token * batch.real_tokens + self.pair * attended_pairs(batch)


def step_flops(config: ModelConfig, lora: LoraSpec | None = None, choices: int | None = None) -> StepFlops:
    """The operations of forward and backward pass.

    Args:
      lora: adapters train and nothing else. choices: how many columns of the head are used (discriminative task);
        None: all.
    """
    layers, head = matrix_weights(config)
    if choices is not None:
        head = config.hidden_size * choices
    if lora is None:
        token = 6.0 * (layers + head)
    else:
        adapters = sum(math.prod(shape) for shape in lora_shapes(config, lora).values())
        token = 4.0 * (layers + head) + 6.0 * adapters
    return StepFlops(token, 12.0 * config.num_layers * config.num_heads * config.head_dim)


def matrix_weights(config: ModelConfig) -> tuple[int, int]:
    """How many weights the matrices of all layers have, and those of the head."""
    d, f = config.hidden_size, config.intermediate_size
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return config.num_layers * (2 * d * heads + 2 * d * kv_heads + 3 * d * f), d * config.vocab_size


def attended_pairs(batch: Batch) -> float:
    """Pairs of a token and a token that it sees, n (n + 1) / 2 for an example of n tokens, over the whole batch.

    Exact where all rows are here; else the rows here stand for the others, in proportion to the tokens.
    """
    if batch.positions is not None and batch.segment_ids is not None:
        seen = (batch.positions + 1)[batch.segment_ids > 0]
        pairs, tokens = float(seen.sum(dtype=np.float64)), seen.size
    else:
        counted = batch.weights > 0  # an example ends with a target
        lengths = np.where(counted.any(axis=1), batch.weights.shape[1] - counted[:, ::-1].argmax(axis=1), 0)
        pairs, tokens = float((lengths * (lengths + 1.0) / 2).sum()), int(lengths.sum())
    return pairs * batch.real_tokens / max(tokens, 1)


@dataclass(frozen=True)
class Device:
    """Of one JAX device. peak: dense bfloat16 FLOP/s. memory: bytes on the board."""

    peak: float
    memory: float


def _device(tera: float, gigabytes: float) -> Device:
    return Device(tera * TERA, gigabytes * 1e9)


# jax.Device.device_kind in lower case (of a GPU: its beginning) -> what its maker publishes. TPUs: the page of
# each version under docs.cloud.google.com/tpu/docs; v2, v3 and 7x show two devices a chip. NVIDIA: data sheets,
# bfloat16 Tensor Core without sparsity (half of the figure with sparsity where only that is printed).
DEVICES: dict[str, Device] = {
    "tpu v2": _device(22.5, 8),
    "tpu v3": _device(61.5, 16),
    "tpu v4": _device(275, 32),
    "tpu v5 lite": _device(197, 16),
    "tpu v5e": _device(197, 16),
    "tpu v5": _device(459, 95),
    "tpu v5p": _device(459, 95),
    "tpu v6 lite": _device(918, 32),
    "tpu v6e": _device(918, 32),
    "tpu7x": _device(1153.5, 96),
    "nvidia a100-sxm4-40gb": _device(312, 40),
    "nvidia a100-pcie-40gb": _device(312, 40),
    "nvidia a100": _device(312, 80),
    "nvidia a40": _device(149.7, 48),
    "nvidia l4": _device(121, 24),
    "nvidia l40s": _device(362, 48),
    "nvidia rtx a6000": _device(154.8, 48),
    "nvidia h100 pcie": _device(756, 80),
    "nvidia h100 nvl": _device(835.5, 94),
    "nvidia h100": _device(989.4, 80),
    "nvidia h200 nvl": _device(835.5, 141),
    "nvidia h200": _device(989.4, 141),
    "nvidia gh200": _device(989.4, 96),
    "nvidia b200": _device(2250, 180),
    "nvidia gb200": _device(2500, 186),
}


def known_device(kind: str) -> Device | None:
    """By jax.Device.device_kind. A slice of a GPU (MIG) is not the GPU."""
    kind = kind.lower()
    if kind in DEVICES:
        return DEVICES[kind]
    if not kind.startswith("nvidia ") or " mig " in kind:
        return None
    names = [name for name in DEVICES if kind.startswith((f"{name} ", f"{name}-"))]
    return DEVICES[max(names, key=len)] if names else None
