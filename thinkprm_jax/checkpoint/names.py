"""The one table between our parameter paths and the tensor names of Hugging Face checkpoints.

Loading and saving both read it. Hugging Face keeps a linear layer as [out, in]; ours are [in, out].
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.parameters import parameter_axes

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# (our path, Hugging Face name, transposed); {} is the layer's number.
_NAMES: tuple[tuple[str, str, bool], ...] = (
    ("embed.embedding", EMBEDDING, False),
    ("layers.{}.attention_norm.scale", "model.layers.{}.input_layernorm.weight", False),
    ("layers.{}.attention.query.kernel", "model.layers.{}.self_attn.q_proj.weight", True),
    ("layers.{}.attention.query.bias", "model.layers.{}.self_attn.q_proj.bias", False),
    ("layers.{}.attention.key.kernel", "model.layers.{}.self_attn.k_proj.weight", True),
    ("layers.{}.attention.key.bias", "model.layers.{}.self_attn.k_proj.bias", False),
    ("layers.{}.attention.value.kernel", "model.layers.{}.self_attn.v_proj.weight", True),
    ("layers.{}.attention.value.bias", "model.layers.{}.self_attn.v_proj.bias", False),
    ("layers.{}.attention.output.kernel", "model.layers.{}.self_attn.o_proj.weight", True),
    ("layers.{}.attention.output.bias", "model.layers.{}.self_attn.o_proj.bias", False),
    ("layers.{}.attention.query_norm.scale", "model.layers.{}.self_attn.q_norm.weight", False),
    ("layers.{}.attention.key_norm.scale", "model.layers.{}.self_attn.k_norm.weight", False),
    ("layers.{}.mlp_norm.scale", "model.layers.{}.post_attention_layernorm.weight", False),
    ("layers.{}.mlp.gate.kernel", "model.layers.{}.mlp.gate_proj.weight", True),
    ("layers.{}.mlp.gate.bias", "model.layers.{}.mlp.gate_proj.bias", False),
    ("layers.{}.mlp.up.kernel", "model.layers.{}.mlp.up_proj.weight", True),
    ("layers.{}.mlp.up.bias", "model.layers.{}.mlp.up_proj.bias", False),
    ("layers.{}.mlp.down.kernel", "model.layers.{}.mlp.down_proj.weight", True),
    ("layers.{}.mlp.down.bias", "model.layers.{}.mlp.down_proj.bias", False),
    ("norm.scale", "model.norm.weight", False),
    ("head.kernel", HEAD, True),
    ("score.inner.kernel", "score.0.weight", True),
    ("score.inner.bias", "score.0.bias", False),
    ("score.outer.kernel", "score.2.weight", True),
    ("score.outer.bias", "score.2.bias", False),
    ("score.summary.kernel", "v_head.summary.weight", True),
    ("score.summary.bias", "v_head.summary.bias", False),
)
_BY_PATH = {path: (name, transposed) for path, name, transposed in _NAMES}
_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
# Rotation frequencies, which old checkpoints store and config.json determines.
_FREQUENCIES = re.compile(r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """Where one of our parameters lives in a checkpoint."""

    path: str
    name: str
    transposed: bool
    axes: tuple[str | None, ...]  # logical axes of our parameter, in our orientation


def stored_tensors(config: ModelConfig) -> list[StoredTensor]:
    """Every parameter of ``config``'s decoder, layer by layer in the order of a Hugging Face file."""
    place = {path: number for number, path in enumerate(_BY_PATH)}
    tensors = []
    for path, axes in parameter_axes(config).items():
        pattern = _NUMBER.sub("{}", path, count=1)
        layer = _NUMBER.search(path)
        name, transposed = _BY_PATH[pattern]
        name = name.format(layer.group()) if layer else name
        # Embedding, the layers by number, the final norm and the head.
        group = int(layer.group()) if layer else (-1 if pattern == "embed.embedding" else config.num_layers)
        tensors.append(((group, place[pattern]), StoredTensor(path, name, transposed, axes)))
    return [tensor for _, tensor in sorted(tensors, key=lambda item: item[0])]


def layers_named(names: Iterable[str]) -> int:
    """How many layers the tensors of a checkpoint belong to, by the largest number among their names."""
    return max((int(found[1]) + 1 for name in names if (found := _LAYER.match(name))), default=0)


def adapter_name(kernel: StoredTensor, matrix: str) -> str:
    """The name that peft gives ``lora_a`` (kept as [r, in]) or ``lora_b`` ([out, r]) of a linear map."""
    return f"base_model.model.{kernel.name.removesuffix('weight')}{matrix[:-1]}{matrix[-1].upper()}.weight"


def ignorable(name: str, config: ModelConfig) -> bool:
    """True for a tensor that a checkpoint may hold although the decoder has no parameter for it."""
    no_head = config.tie_embeddings or config.score_labels is not None
    return bool(_FREQUENCIES.fullmatch(name)) or (no_head and name == HEAD)
