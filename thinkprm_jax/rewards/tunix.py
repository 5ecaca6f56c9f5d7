"""Policies of Tunix: its Qwen2 with the weights of a folder of ours, and its weights under our names.

Tunix's trainers and samplers call a model in a way of their own, so the policy is theirs. A reward needs nothing
of this: ``reward_fns=[prm.reward(on_error=0.0)]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import UserError

if TYPE_CHECKING:
    import jax
    from flax import nnx
    from jax.sharding import Mesh

_NAMES = {
    "embedder.input_embedding": "embed.embedding",
    "final_norm.w": "norm.scale",
    "lm_head.w": "head.kernel",
    "post_attention_layernorm.w": "mlp_norm.scale",
    "input_layernorm.w": "attention_norm.scale",
    "attn.q_proj.w": "attention.query.kernel",
    "attn.k_proj.w": "attention.key.kernel",
    "attn.v_proj.w": "attention.value.kernel",
    "attn.o_proj.w": "attention.output.kernel",
    "attn.q_bias": "attention.query.bias",
    "attn.k_bias": "attention.key.bias",
    "attn.v_bias": "attention.value.bias",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
}


def load_qwen2(model: str | Path, mesh: Mesh) -> Any:
    """Tunix's Qwen2 with the weights of a bundled model, a folder or an id, in float32.

    Args:
      mesh: with the axes ``fsdp`` and ``tp``, as Tunix wants it.
    Raises:
      UserError: the model is no Qwen2.
      ImportError: google-tunix is not installed.
    """
    from tunix.models.qwen2 import model as qwen2
    from tunix.models.qwen2.params import create_model_from_safe_tensors

    from thinkprm_jax.checkpoint.huggingface import read_model_config
    from thinkprm_jax.checkpoint.weights import find_model

    files = find_model(model)
    config = read_model_config(files)
    if not config.qkv_bias or files.adapters:
        raise UserError(f"{model} is no Qwen2 model with whole weights, which Tunix's Qwen2 wants")
    theirs = qwen2.ModelConfig(
        num_layers=config.num_layers,
        vocab_size=config.vocab_size,
        embed_dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        num_kv_heads=config.num_kv_heads,
        rope_theta=int(config.rope_theta),
        norm_eps=config.rms_norm_eps,
        use_tied_embedding=config.tie_embeddings,
    )
    return create_model_from_safe_tensors(str(files.base), theirs, mesh)


def weights_of(policy: nnx.Module) -> dict[str, jax.Array]:
    """The weights of Tunix's Qwen2 by our names, for ``update_weights`` of a sampler or a verifier."""
    from flax import nnx

    found = {}
    for path, leaf in nnx.to_flat_state(nnx.state(policy, nnx.Param)):
        name, value = ".".join(map(str, path)), leaf[...]
        for theirs, ours in _NAMES.items():
            name = name.replace(theirs, ours)
        if value.ndim == 3:  # heads and their width are one dimension of ours
            value = value.reshape((-1, value.shape[2]) if "output" in name else (value.shape[0], -1))
        found[name] = value
    return found
