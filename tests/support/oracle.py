"""Random transformers models, the references that ours are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

from thinkprm_jax.tokenizer.tokenizer import Tokenizer

torch.set_num_threads(1)  # its threads spin, and these models are too small to share

VOCABULARY = 300
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,  # short, so that a prompt of 600 tokens feels the scaling
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def tokenizer() -> Tokenizer:
    """A byte-level tokenizer of 257 ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>"])
    return Tokenizer(backend, {"eos_token": "<|end|>"}, None)


def random_model(
    family: str,
    heads: int,
    kv_heads: int,
    *,
    tied: bool,
    theta: float = 1e4,
    seed: int = 0,
    vocabulary: int = VOCABULARY,
    **keys: Any,
) -> transformers.PreTrainedModel:
    """Two layers in float32 in which every parameter matters, biases and norms included.

    The weights are large enough that attention is far from uniform and the best token stands out.
    """
    rope = {"rope_type": "default", "rope_theta": theta, **keys.pop("rope", {})}
    # The generic config class keeps keys that the family's own would not take (head_dim).
    config = transformers.AutoConfig.for_model(
        family, vocab_size=vocabulary, hidden_size=heads * 8, intermediate_size=72, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=tied, rope_parameters=rope,
        max_position_embeddings=1024, bos_token_id=None, eos_token_id=None, **keys,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            else:
                scale = {"model.embed_tokens.weight": 0.5, "lm_head.weight": 0.5}.get(name)
                parameter.copy_(noise * (scale or 1.5 * parameter.shape[1] ** -0.5))
    return model


def save(model: transformers.PreTrainedModel, folder: Path, **keys: Any) -> Path:
    """The folder that `load_model` reads: what transformers writes, and a tokenizer."""
    model.save_pretrained(folder, **keys)
    tokenizer().save(folder)
    return folder


def logits(model: transformers.PreTrainedModel, tokens: np.ndarray) -> np.ndarray:
    """int [B, T] -> float32 [B, T, V]."""
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


def prompt(length: int, seed: int = 0) -> np.ndarray:
    """int32 [length], random."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, length).astype(np.int32)
