"""config.json is read completely, or refused by the name of what is not supported."""

from __future__ import annotations

from typing import Any

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.rope_config import Llama3Scaling

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
# Of Qwen3-1.7B's.
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
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
    assert config.rope_scaling == Llama3Scaling(32.0, 1.0, 4.0, 8192)
    assert (config.qkv_bias, config.tie_embeddings, config.head_dim) == (False, True, 64)
    assert config.eos_token_id == (128001, 128008, 128009)


def test_qwen3() -> None:
    config = ModelConfig.from_hf(QWEN3)
    assert (config.qk_norm, config.tie_embeddings) == (True, True)
    assert (config.qkv_bias, config.output_bias) == (False, False)
    assert (config.head_dim, config.rope_theta, config.positions) == (128, 1e6, 40960)
    biased = ModelConfig.from_hf({**QWEN3, "attention_bias": True})
    assert (biased.qkv_bias, biased.output_bias) == (True, True)


def test_the_heads_of_a_qwen3_are_128_wide_where_the_file_does_not_say() -> None:
    keys = {name: value for name, value in QWEN3.items() if name != "head_dim"}
    assert ModelConfig.from_hf({**keys, "num_attention_heads": 32}).head_dim == 128


@pytest.mark.parametrize(("window", "positions"), [(4096, 4096), (None, 32768), (65536, 32768)])
def test_the_window_of_a_mistral_bounds_its_positions(window: int | None, positions: int) -> None:
    config = ModelConfig.from_hf({**MISTRAL, "sliding_window": window})
    assert config.positions == positions
    assert ModelConfig.from_hf(config.to_hf()) == config
    assert config.to_hf()["sliding_window"] == window


def test_a_mistral_that_says_nothing_of_a_window_has_that_of_its_own_code() -> None:
    keys = {name: value for name, value in MISTRAL.items() if name != "sliding_window"}
    assert ModelConfig.from_hf(keys).positions == 4096


@pytest.mark.parametrize("keys", [R1_DISTILL, QWEN3])
@pytest.mark.parametrize(
    "change",
    [
        {"max_window_layers": 28, "sliding_window": 4096},
        {"max_window_layers": 100, "sliding_window": 4096},
        {"max_window_layers": 0, "sliding_window": 131072},
        {"max_window_layers": 0, "sliding_window": None},
        {"max_window_layers": 0, "sliding_window": 4096, "layer_types": ["full_attention"] * 28},
        {"sliding_window": 131072, "layer_types": ["full_attention", "sliding_attention"] * 14},
    ],
)
def test_a_window_that_no_layer_uses_is_full_attention(keys: dict[str, Any], change: dict[str, Any]) -> None:
    config = ModelConfig.from_hf({**keys, "use_sliding_window": True, **change})
    assert config == ModelConfig.from_hf(keys)
    assert config.to_hf()["use_sliding_window"] is False


def test_a_window_must_hide_nothing_of_what_yarn_reaches() -> None:
    keys = {**R1_DISTILL, "max_position_embeddings": 32768, "use_sliding_window": True, "sliding_window": 32768}
    assert ModelConfig.from_hf(keys).positions == 32768
    with pytest.raises(UserError, match="only 32768 of 131072 positions are seen"):
        ModelConfig.from_hf({**keys, "rope_scaling": {"type": "yarn", "factor": 4.0}})


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


@pytest.mark.parametrize("keys", [R1_DISTILL, QWEN3, LLAMA, MISTRAL])
def test_to_hf_is_read_back(keys: dict[str, Any]) -> None:
    config = ModelConfig.from_hf(keys)
    assert ModelConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_sliding_window": True}, "use_sliding_window: from layer 21 on .* only 4096 of 131072 positions"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types\[1\] = 'sliding_attention'"),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention"] * 28}, r"layer_types\[0\]"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries for 28 layers"),
        ({"layer_types": ["linear_attention"] * 28}, r"layer_types\[0\] = 'linear_attention'"),
        ({"model_type": "llama", "use_sliding_window": True}, "use_sliding_window"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "architecture 'Qwen2ForSequenceClassification'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope type 'dynamic' is not supported"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "rope type 'longrope' is not supported"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, r"rope type \['yarn'\] is not supported"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": {"type": "yarn", "factor": 0}}, "rope_scaling.factor is 0, it must be a number above 0"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "truncate": 1}},
            "rope_scaling.truncate is 1",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
            "rope_parameters.full_attention",
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "rope_scaling.low_freq_factor is missing"),
        ({"rope_parameters": {"rope_type": "su", "factor": 2.0}}, "rope type 'su'"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"model_type": "gemma"}, "model_type 'gemma'"),
        ({"model_type": None}, "model_type None"),
        ({"hidden_size": "wide"}, "config.json: .*'wide'"),
        ({"num_key_value_heads": 5}, "config.json: .*num_key_value_heads 5"),
        ({"head_dim": 127}, "config.json: head_dim 127"),
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


HUGE = 10**400
NUMBERS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
           "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta",
           "initializer_range")  # fmt: skip


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "value", [-1, float("nan"), float("inf"), float("-inf"), HUGE, -HUGE, "7", True, [7], {"a": 7}]
)
def test_numbers_that_cannot_be(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^here/config.json: {key} is .{{1,80}}, it must be ") as error:
        ModelConfig.from_hf({**QWEN3, key: value}, "here/config.json")
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", [key for key in NUMBERS if key not in ("rms_norm_eps", "initializer_range")])
def test_numbers_that_cannot_be_zero(key: str) -> None:
    with pytest.raises(UserError, match=f"config.json: {key} is 0"):
        ModelConfig.from_hf({**QWEN3, key: 0})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layer_types": 5}, "layer_types is 5, it must be a list of strings"),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention', it must be a list"),
        ({"layer_types": [5]}, r"layer_types is \[5\], it must be a list of strings"),
        ({"architectures": 5}, "architectures is 5, it must be a list of strings"),
        ({"architectures": "Qwen3ForCausalLM"}, "architectures is 'Qwen3ForCausalLM'"),
        ({"num_hidden_layers": 100_000}, "num_hidden_layers is 100000, it must be a whole number from 1 to 1000"),
        ({"hidden_size": 2048.5}, "hidden_size is 2048.5"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', it must be true or false"),
        ({"attention_bias": 1}, "attention_bias is 1, it must be true or false"),
        ({"use_sliding_window": "no"}, "use_sliding_window is 'no'"),
        ({"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers is -1"),
        ({"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 0}, "sliding_window is 0"),
        ({"rope_scaling": 5}, "rope_scaling is 5, it must be an object"),
        ({"rope_parameters": [1]}, r"rope_parameters is \[1\], it must be an object"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_parameters.rope_theta is -1"),
        ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, "rope_scaling.factor is nan"),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": HUGE}}, "rope_scaling.beta_fast is 1000"),
        ({"rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 0}}, "rope_scaling.orig"),
        ({"eos_token_id": "end"}, "eos_token_id is 'end'"),
        ({"eos_token_id": [1, 4e9]}, "eos_token_id is 4000000000.0"),
        ({"bos_token_id": [1, 2]}, r"bos_token_id is \[1, 2\]"),
        ({"pad_token_id": float("nan")}, "pad_token_id is nan"),
        ({"hidden_act": {"a": 1}}, "hidden_act {'a': 1} is not supported"),
    ],
)
def test_values_of_another_kind_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"^config.json: {named}"):
        ModelConfig.from_hf({**QWEN3, **change})


def test_whole_numbers_may_be_written_as_fractions() -> None:
    assert ModelConfig.from_hf({**QWEN3, "hidden_size": 2048.0}) == ModelConfig.from_hf(QWEN3)
