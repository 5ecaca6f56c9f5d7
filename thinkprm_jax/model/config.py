"""The architecture of a decoder, read from a Hugging Face ``config.json``.

Supported families: Qwen2 (R1-Distill-Qwen, ThinkPRM, QwQ; with a head of scores: Qwen2.5-Math-PRM, Skywork),
Qwen3 (dense, 0.6B to 32B), Llama (Llama 2, 3, 3.1, 3.2) and Mistral (Mistral-7B, Math-Shepherd). Everything that
changes the arithmetic is read from the file and nothing is guessed from a model's name; a setting that we do not
implement is refused by name, because a model that runs with the wrong arithmetic is worse than none.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from thinkprm_jax.errors import UserError

logger = logging.getLogger(__name__)

FAMILIES = ("qwen2", "qwen3", "llama", "mistral")
# architectures of config.json -> classes of the head that stands in place of the vocabulary's. Qwen's own code
# gives its process reward models two, whatever config.json says; Skywork's have a value, the log odds.
SCORE_HEADS = {"Qwen2ForProcessRewardModel": 2, "Qwen2ForPrmModel": 1}

# Keys that change the arithmetic of related models, with the value that means "not in use".
_MUST_BE = {
    "use_sliding_window": (False, None),
    "use_mrope": (False, None),
    "use_qk_norm": (False, None),
    "pretraining_tp": (1, None),
    "partial_rotary_factor": (1, 1.0, None),
    "attention_dropout": (0, 0.0, None),
    "hidden_dropout": (0, 0.0, None),
    "quantization_config": (None,),
    "num_experts": (None, 0),
    "final_logit_softcapping": (None,),
    "attn_logit_softcapping": (None,),
    "logits_scaling": (1, 1.0, None),
    "residual_multiplier": (1, 1.0, None),
    "embedding_multiplier": (1, 1.0, None),
    "attention_multiplier": (None,),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
}

# Carried from folder to folder; `thinkprm` says what a verifier of ours was trained for.
_KEPT = ("thinkprm", "pad_token_id")

_ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
}
_QWEN3_HEAD_DIM = 128  # where the file does not say; other families divide the width by the heads


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama-3 frequency scaling (transformers ``rope_type: llama3``)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shapes and constants of one decoder. Letters of the shapes: V, D, F, L, H, K, h."""

    vocab_size: int  # V
    hidden_size: int  # D
    intermediate_size: int  # F
    num_layers: int  # L
    num_heads: int  # H
    num_kv_heads: int  # K
    head_dim: int  # h
    model_type: str = "qwen2"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-6
    qkv_bias: bool = True
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # an RMSNorm over h on every head of q and k, before the rotation
    tie_embeddings: bool = False
    score_labels: int | None = None  # classes of a reward model's head, which has no head over the vocabulary
    max_position_embeddings: int = 32_768
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    # Keys of config.json that change no arithmetic of the decoder and are kept: _KEPT. Not to be modified.
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"config: num_attention_heads {self.num_heads} is no multiple of num_key_value_heads "
                f"{self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise UserError(f"config: head_dim {self.head_dim} is odd; rotary embedding needs pairs")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
        """Reads the dictionary of a ``config.json``.

        Args:
          config: the parsed file, as written by transformers 4 or 5.
          source: the file's name, for the messages.
        Raises:
          UserError: a key is missing, or asks for arithmetic that is not implemented; names the key.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise UserError(f"{source}: model_type {family!r} is not supported (we have: {', '.join(FAMILIES)})")
        _refuse_unsupported(config, source)
        try:
            rope_theta, rope_scaling = _read_rope(config, source)
            heads = int(config["num_attention_heads"])
            hidden = int(config["hidden_size"])
            eos = config.get("eos_token_id")
            # Qwen2's and Mistral's own code knows no such key.
            attention_bias = family in ("llama", "qwen3") and bool(config.get("attention_bias", False))
            width = _QWEN3_HEAD_DIM if family == "qwen3" else hidden // heads
            labels = _score_labels(config)
            return cls(
                model_type=family,
                vocab_size=int(config["vocab_size"]),
                hidden_size=hidden,
                intermediate_size=int(config["intermediate_size"]),
                num_layers=int(config["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or width),
                rope_theta=rope_theta,
                rope_scaling=rope_scaling,
                rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                qkv_bias=family == "qwen2" or attention_bias,
                output_bias=attention_bias,
                mlp_bias=family == "llama" and bool(config.get("mlp_bias", False)),
                qk_norm=family == "qwen3",
                tie_embeddings=bool(config.get("tie_word_embeddings", False)) and labels is None,
                score_labels=labels,
                max_position_embeddings=_positions(config),
                initializer_range=float(config.get("initializer_range", 0.02)),
                bos_token_id=config.get("bos_token_id"),
                eos_token_id=tuple(eos) if isinstance(eos, list) else eos,
                extra={key: config[key] for key in _KEPT if config.get(key) is not None},
            )
        except UserError:
            raise
        except KeyError as error:
            raise UserError(f"{source}: {error.args[0]} is missing") from None
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"{source}: {error}") from None

    def to_hf(self) -> dict[str, Any]:
        """The ``config.json`` dictionary that transformers (4 and 5), vLLM and SGLang read."""
        architecture = _ARCHITECTURES[self.model_type]
        if self.score_labels is not None:
            architecture = next(name for name, labels in SCORE_HEADS.items() if labels == self.score_labels)
        config: dict[str, Any] = {
            "architectures": [architecture],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_embeddings,
            "max_position_embeddings": self.max_position_embeddings,
            "initializer_range": self.initializer_range,
            "use_cache": True,
        }
        if self.model_type in ("qwen2", "qwen3"):
            config["use_sliding_window"] = False
        elif self.model_type == "mistral":
            config["sliding_window"] = None  # max_position_embeddings lies within it: see _positions
        if self.model_type in ("qwen3", "llama"):
            config["attention_bias"] = self.qkv_bias
        if self.model_type == "llama":
            config["mlp_bias"] = self.mlp_bias
        if self.rope_scaling is not None:
            config["rope_scaling"] = {"rope_type": "llama3", **dataclasses.asdict(self.rope_scaling)}
        eos = self.eos_token_id
        # null where there is none: a key that is absent gets the default of the family, such as Llama's 1 and 2.
        config["bos_token_id"] = self.bos_token_id
        config["eos_token_id"] = list(eos) if isinstance(eos, tuple) else eos
        return config | dict(self.extra)


def _score_labels(config: Mapping[str, Any]) -> int | None:
    return next((SCORE_HEADS[name] for name in config.get("architectures") or [] if name in SCORE_HEADS), None)


def _positions(config: Mapping[str, Any]) -> int:
    """Positions the model may use. A sliding window is not implemented, and within its length it hides nothing: so
    it is one more bound on the length, which whoever takes a max_length checks (Math-Shepherd's is 4,096 of
    32,768)."""
    positions = int(config.get("max_position_embeddings", 32_768))
    window = config.get("sliding_window") if config.get("model_type") == "mistral" else None
    if window is None or int(window) >= positions:
        return positions
    if int(window) < 1:
        raise ValueError(f"sliding_window is {window}, it must be null or at least 1")
    logger.info("sliding_window %s: contexts are limited to it, of %d positions", window, positions)
    return int(window)


def _refuse_unsupported(config: Mapping[str, Any], source: str) -> None:
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UserError(f"{source}: hidden_act {activation!r} is not supported (we have: silu)")
    for key, allowed in _MUST_BE.items():
        if key in config and config[key] not in allowed:
            raise UserError(f"{source}: {key} = {config[key]!r} is not supported (it must be {allowed[0]!r})")
    # Where a Mistral says it, its window bounds the length: see _positions.
    full = (
        ("full_attention", "sliding_attention") if config.get("model_type") == "mistral" else ("full_attention",)
    )
    for layer, kind in enumerate(config.get("layer_types") or []):
        if kind not in full:
            raise UserError(
                f"{source}: layer_types[{layer}] = {kind!r} is not supported (we have: full_attention)"
            )


def _read_rope(config: Mapping[str, Any], source: str) -> tuple[float, RopeScaling | None]:
    """Theta and scaling, from the keys of transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters)."""
    parameters = dict(config.get("rope_parameters") or {})
    scaling = {**parameters, **(config.get("rope_scaling") or {})}
    theta = float(parameters.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    if float(parameters.get("partial_rotary_factor") or 1.0) != 1.0:
        raise UserError(f"{source}: rope_parameters.partial_rotary_factor is not supported (it must be 1.0)")
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UserError(f"{source}: rope type {kind!r} is not supported (we have: default, llama3)")
    try:
        return theta, RopeScaling(
            factor=float(scaling["factor"]),
            low_freq_factor=float(scaling["low_freq_factor"]),
            high_freq_factor=float(scaling["high_freq_factor"]),
            original_max_position_embeddings=int(scaling["original_max_position_embeddings"]),
        )
    except KeyError as error:
        raise UserError(f"{source}: rope_scaling.{error.args[0]} is missing") from None
