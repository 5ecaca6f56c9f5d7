"""Theta and scaled frequencies are those of transformers, from whatever keys a file has."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.mistral.modeling_mistral import MistralRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.rope import rope

THEIRS = {
    "qwen2": Qwen2RotaryEmbedding,
    "qwen3": Qwen3RotaryEmbedding,
    "llama": LlamaRotaryEmbedding,
    "mistral": MistralRotaryEmbedding,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
NEW = {"rope_type": "default", "rope_theta": 1e6}
SCALINGS: list[dict[str, Any]] = [
    {"rope_scaling": YARN},
    {"rope_scaling": {**YARN, "beta_fast": 16, "beta_slow": 2}, "rope_theta": 1e6},
    {"rope_scaling": {"rope_type": "yarn", "factor": 8, "truncate": False, "attention_factor": 0.7}},
    {"rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}},
    {"rope_scaling": {**YARN, "mscale": 0.7}},
    {"rope_scaling": {**YARN, "factor": None}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},  # of the positions that the file says
    {"rope_scaling": YARN, "original_max_position_embeddings": 32},
    {"rope_scaling": {**YARN, "rope_theta": 5e5}, "rope_theta": 1e6},
    {"rope_scaling": {"type": "linear", "factor": 2.5}, "rope_theta": 1e6},
    {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 64, "rope_theta": 5e5}},
    {"rope_scaling": LLAMA3, "original_max_position_embeddings": 32},
    {"rope_scaling": {"rope_theta": 1e6}},
    {"rope_scaling": {"rope_type": "default", "rope_theta": 1e6}},
    # Both generations of keys in one file: the older ones count.
    {"rope_parameters": NEW, "rope_scaling": YARN},
    {"rope_parameters": NEW, "rope_scaling": YARN, "rope_theta": 3e5},
    {"rope_parameters": NEW, "rope_scaling": {}},
    {"rope_parameters": NEW, "rope_scaling": None},
    {"rope_parameters": {**YARN, "rope_theta": 1e6}},
    {"rope_parameters": YARN, "rope_theta": 7e5},
]


def keys_of(family: str, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": family, "vocab_size": 300, "hidden_size": 64, "intermediate_size": 72,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 256,
        **{name: dict(value) if isinstance(value, dict) else value for name, value in rope.items()},
    }  # fmt: skip


@pytest.mark.parametrize("family", THEIRS)
@pytest.mark.parametrize("rope_keys", SCALINGS, ids=str)
def test_rotations_are_those_of_transformers(family: str, rope_keys: dict[str, Any]) -> None:
    keys = keys_of(family, rope_keys)
    embedding = THEIRS[family](transformers.AutoConfig.for_model(**keys_of(family, rope_keys)))
    config = ModelConfig.from_hf(keys)
    positions = np.arange(700)
    angles = positions[:, None].astype(np.float32) * embedding.inv_freq.numpy()
    for found, expected in zip(rope(config, positions), (np.cos(angles), np.sin(angles)), strict=True):
        np.testing.assert_allclose(found[:, 0], embedding.attention_scaling * expected, atol=2e-4)
    assert ModelConfig.from_hf(config.to_hf()) == config


def test_a_theta_that_is_not_used_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ModelConfig.from_hf(keys_of("qwen2", {"rope_parameters": NEW, "rope_scaling": YARN}), "here/config.json")
    assert "here/config.json: rope_scaling stands in the place of rope_parameters" in caplog.text
    assert "rope_theta is 10000 and not 1000000.0" in caplog.text


@pytest.mark.parametrize(
    ("rope_keys", "positions"),
    [
        ({}, 256),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 1024),
        ({"rope_scaling": {**YARN, "factor": 3.0}}, 256),
        ({"rope_scaling": {**YARN, "factor": 5.0}}, 320),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.5}}, 640),
        ({"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 64}}, 256),
    ],
)
def test_how_long_a_text_may_be(rope_keys: dict[str, Any], positions: int) -> None:
    """Qwen2.5's files with yarn say 32,768 positions and mean 131,072."""
    assert ModelConfig.from_hf(keys_of("qwen2", rope_keys)).positions == positions
