"""config.json is read completely, or refused by the name of what is not supported."""

from __future__ import annotations

from typing import Any

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig, RopeScaling

# The keys of DeepSeek-R1-Distill-Qwen-1.5B's config.json.
R1_DISTILL = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 131072,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "eos_token_id": [128001, 128008, 128009],
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
# The keys of Math-Shepherd's.
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
}


def test_r1_distill() -> None:
    config = ModelConfig.from_hf(R1_DISTILL)
    assert (config.head_dim, config.num_heads // config.num_kv_heads, config.rope_theta) == (128, 6, 10_000.0)
    assert (config.qkv_bias, config.output_bias, config.mlp_bias, config.tie_embeddings) == (
        True,
        False,
        False,
        False,
    )
    assert config.eos_token_id == 151643


def test_llama() -> None:
    config = ModelConfig.from_hf(LLAMA)
    assert config.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)
    assert (config.qkv_bias, config.tie_embeddings, config.head_dim) == (False, True, 64)
    assert config.eos_token_id == (128001, 128008, 128009)


@pytest.mark.parametrize(("window", "positions"), [(4096, 4096), (None, 32768), (65536, 32768)])
def test_the_window_of_a_mistral_bounds_its_positions(window: int | None, positions: int) -> None:
    config = ModelConfig.from_hf({**MISTRAL, "sliding_window": window})
    assert config.max_position_embeddings == positions
    assert ModelConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(("architecture", "labels"), [("Qwen2ForProcessRewardModel", 2), ("Qwen2ForPrmModel", 1)])
def test_a_process_reward_model_has_a_head_of_scores(architecture: str, labels: int) -> None:
    config = ModelConfig.from_hf({**R1_DISTILL, "architectures": [architecture]})
    assert config.score_labels == labels
    assert config.to_hf()["architectures"] == [architecture]
    assert ModelConfig.from_hf(config.to_hf()) == config


def test_rope_keys_of_transformers_5() -> None:
    old = {key: value for key, value in LLAMA.items() if key not in ("rope_theta", "rope_scaling")}
    new = {**old, "rope_parameters": {"rope_theta": 500000.0, **LLAMA["rope_scaling"]}}
    assert ModelConfig.from_hf(new) == ModelConfig.from_hf(LLAMA)


@pytest.mark.parametrize("keys", [R1_DISTILL, LLAMA, MISTRAL])
def test_to_hf_is_read_back(keys: dict[str, Any]) -> None:
    config = ModelConfig.from_hf(keys)
    assert ModelConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types\[1\]"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "rope_scaling.low_freq_factor is missing"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope type 'linear'"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"model_type": "gemma"}, "model_type 'gemma'"),
        ({"model_type": None}, "model_type None"),
        ({"hidden_size": "wide"}, "config.json: .*'wide'"),
        ({"num_key_value_heads": 5}, "num_key_value_heads 5"),
        ({"head_dim": 127}, "head_dim 127"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window is 0"),
    ],
)
def test_refusals_name_the_key(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        ModelConfig.from_hf({**R1_DISTILL, **change})


@pytest.mark.parametrize(
    "key", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
)
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(UserError, match=f"{key} is missing"):
        ModelConfig.from_hf({name: value for name, value in R1_DISTILL.items() if name != key})
