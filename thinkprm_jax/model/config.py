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
from thinkprm_jax.model.fields import Fields, shown
from thinkprm_jax.model.rope_config import RopeScaling, read_rope, rope_to_hf

logger = logging.getLogger(__name__)

FAMILIES = ("qwen2", "qwen3", "llama", "mistral")
# architectures of config.json -> classes of the head that stands in place of the vocabulary's. Qwen's own code
# gives its process reward models two, whatever config.json says; Skywork's have a value, the log odds.
SCORE_HEADS = {"Qwen2ForProcessRewardModel": 2, "Qwen2ForPrmModel": 1}

# Keys that change the arithmetic of related models, with the value that means "not in use".
_MUST_BE = {
    "use_mrope": (False, None),
    "use_qk_norm": (False, None),
    "pretraining_tp": (1, None),
    "partial_rotary_factor": (1, 1.0, None),
    "attention_dropout": (0, 0.0, None),
    "hidden_dropout": (0, 0.0, None),
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
_QWEN = ("qwen2", "qwen3")
_QWEN3_HEAD_DIM = 128  # where the file does not say; other families divide the width by the heads
_MOST_LAYERS = 1000
_FULL, _SLIDING = "full_attention", "sliding_attention"


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
    max_position_embeddings: int = 32_768  # what the file says; how long a text may be: positions
    window: int | None = None  # tokens that a Mistral attends to; a longer text is refused
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    # Keys of config.json that change no arithmetic of the decoder and are kept: _KEPT. Not to be modified.
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"num_attention_heads {self.num_heads} is no multiple of num_key_value_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim {self.head_dim} is odd; rotary embedding needs pairs")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
        """Reads the dictionary of a ``config.json``.

        Args:
          config: the parsed file, as written by transformers 4 or 5.
          source: the file's name, for the messages.
        Raises:
          UserError: a key is missing, or asks for arithmetic that is not implemented; names the key.
        """
        fields = Fields(config, source)
        family = config.get("model_type")
        if family not in FAMILIES:
            raise fields.refuse(f"model_type {shown(family)} is not supported (we have: {', '.join(FAMILIES)})")
        _refuse_unsupported(fields)
        labels = _score_labels(fields)
        theta, scaling = read_rope(fields)
        heads, hidden = fields.whole("num_attention_heads"), fields.whole("hidden_size")
        width = _QWEN3_HEAD_DIM if family == "qwen3" else max(hidden // heads, 1)
        # Qwen2's and Mistral's own code knows no such key.
        attention_bias = family in ("llama", "qwen3") and fields.flag("attention_bias")
        values: dict[str, Any] = {
            "model_type": family,
            "vocab_size": fields.whole("vocab_size"),
            "hidden_size": hidden,
            "intermediate_size": fields.whole("intermediate_size"),
            "num_layers": fields.whole("num_hidden_layers", most=_MOST_LAYERS),
            "num_heads": heads,
            "num_kv_heads": fields.whole("num_key_value_heads", heads),
            "head_dim": fields.whole("head_dim", width),
            "rope_theta": theta,
            "rope_scaling": scaling,
            "rms_norm_eps": fields.number("rms_norm_eps", 1e-6, most=1.0),
            "qkv_bias": family == "qwen2" or attention_bias,
            "output_bias": attention_bias,
            "mlp_bias": family == "llama" and fields.flag("mlp_bias"),
            "qk_norm": family == "qwen3",
            "tie_embeddings": fields.flag("tie_word_embeddings") and labels is None,
            "score_labels": labels,
            "max_position_embeddings": fields.whole("max_position_embeddings", 32_768),
            # Not implemented; within its length a window hides nothing, so it is one more bound on the length.
            "window": _sliding_window(fields) if family == "mistral" else None,
            "initializer_range": fields.number("initializer_range", 0.02, most=1e6),
            "bos_token_id": fields.id("bos_token_id"),
            "eos_token_id": fields.ids("eos_token_id"),
            "extra": {key: config[key] for key in _KEPT if config.get(key) is not None},
        }
        try:
            found = cls(**values)
        except UserError as error:
            raise fields.refuse(str(error)) from None
        fields.id("pad_token_id")
        _refuse_sliding_layers(fields, found)
        return found

    @property
    def positions(self) -> int:
        """How many tokens a text may have: what the file says, or what the rotary embedding is stretched to, and
        no more than a window that hides nothing of them (Math-Shepherd's is 4,096 of 32,768)."""
        reach = self.max_position_embeddings
        if self.rope_scaling is not None:
            reach = self.rope_scaling.reach(reach)
        return reach if self.window is None else min(reach, self.window)

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
        if self.model_type in _QWEN:
            config["use_sliding_window"] = False
        elif self.model_type == "mistral":
            config["sliding_window"] = self.window
        if self.model_type in ("qwen3", "llama"):
            config["attention_bias"] = self.qkv_bias
        if self.model_type == "llama":
            config["mlp_bias"] = self.mlp_bias
        if self.rope_scaling is not None:
            config["rope_scaling"] = rope_to_hf(self.rope_scaling)
        eos = self.eos_token_id
        # null where there is none: a key that is absent gets the default of the family, such as Llama's 1 and 2.
        config["bos_token_id"] = self.bos_token_id
        config["eos_token_id"] = list(eos) if isinstance(eos, tuple) else eos
        return config | dict(self.extra)


def _score_labels(config: Fields) -> int | None:
    """Classes of the head of scores; None: a head over the vocabulary.

    Raises:
      UserError: the file names architectures of other heads only.
    """
    names = config.words("architectures")
    labels = next((labels for name, labels in SCORE_HEADS.items() if name in names), None)
    others = sorted(name for name in names if "For" in name and "ForCausalLM" not in name)
    if labels is None and others and len(others) == len(names):
        known = ", ".join(("a causal language model", *SCORE_HEADS))
        raise config.refuse(f"architecture {', '.join(map(shown, others))} is not supported (we have: {known})")
    return labels


def _refuse_unsupported(config: Fields) -> None:
    activation = config.content.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise config.refuse(f"hidden_act {shown(activation)} is not supported (we have: silu)")
    for key, allowed in _MUST_BE.items():
        value = config.content.get(key)
        if key in config.content and value not in allowed:
            raise config.refuse(f"{key} = {shown(value)} is not supported (it must be {allowed[0]!r})")


# Windows


def _sliding_window(config: Fields) -> int | None:
    """transformers has 4,096 where the file does not say, and none where it says null."""
    if "sliding_window" in config.content and not config.has("sliding_window"):
        return None
    return config.whole("sliding_window", 4096)


def _refuse_sliding_layers(config: Fields, model: ModelConfig) -> None:
    """Raises `UserError` for a layer that hides a part of what the model may read. Which layers slide is said as
    in transformers: by ``layer_types``, or else Qwen's from ``max_window_layers`` on."""
    types = config.words("layer_types")
    window = None
    if model.model_type in _QWEN and config.flag("use_sliding_window"):
        window = _sliding_window(config)
        first = config.whole("max_window_layers", 28, least=0)
        if not types and window is not None and first < model.num_layers and window < model.positions:
            raise config.refuse(
                f"use_sliding_window: from layer {first} on (max_window_layers) only {window} of "
                f"{model.positions} positions are seen, which is not supported"
            )
    elif config.flag("use_sliding_window"):
        raise config.refuse("use_sliding_window = True is not supported (it must be False)")
    hides_nothing = model.model_type == "mistral" or (window is not None and window >= model.positions)
    for layer, kind in enumerate(types):
        if kind != _FULL and not (kind == _SLIDING and hides_nothing):
            raise config.refuse(f"layer_types[{layer}] = {shown(kind)} is not supported (we have: {_FULL})")
    if types and len(types) != model.num_layers:
        raise config.refuse(f"layer_types has {len(types)} entries for {model.num_layers} layers")
