"""The parameters of a decoder by their dotted paths: shapes, logical axes, where they live on a mesh."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping

from flax import nnx
from jax.sharding import Mesh, NamedSharding

from thinkprm_jax.distributed.mesh import axis_counts, named_sharding
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.lora import LoraSpec
from thinkprm_jax.model.quantization import SUFFIX, Quantization

_KERNEL = re.compile(r"layers\.\d+\..*\.kernel")


@functools.lru_cache(maxsize=8)
def parameter_shapes(
    config: ModelConfig, quantization: Quantization | None = None
) -> Mapping[str, tuple[int, ...]]:
    """Of every parameter by its dotted path. Nothing is allocated, and one layer is traced for all of them."""
    one = dataclasses.replace(config, num_layers=1)
    model = nnx.eval_shape(lambda: Decoder(one, rngs=nnx.Rngs(0), quantization=quantization))
    state = nnx.state(model, nnx.Param)
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in nnx.to_flat_state(state):
        name = ".".join(map(str, path))
        inside = name.removeprefix("layers.0.")
        names = [name] if inside == name else [f"layers.{layer}.{inside}" for layer in range(config.num_layers)]
        shapes |= dict.fromkeys(names, leaf.shape)
    return shapes


def parameter_axes(
    config: ModelConfig, lora: LoraSpec | None = None, quantization: Quantization | None = None
) -> dict[str, tuple[str | None, ...]]:
    """Logical axes of every parameter, by its dotted path; :mod:`thinkprm_jax.distributed.mesh` maps them to mesh
    axes."""
    adapted = lora.paths if lora is not None else ()
    axes: dict[str, tuple[str | None, ...]] = {
        "embed.embedding": ("vocab", "embed"),
        "norm.scale": (None,),
    }
    if config.score_labels is not None:
        for layer in ("score.summary",) if config.score_labels == 1 else ("score.inner", "score.outer"):
            axes[f"{layer}.kernel"], axes[f"{layer}.bias"] = ("embed", None), (None,)
    elif not config.tie_embeddings:
        axes["head.kernel"] = ("embed", "vocab")
    for i in range(config.num_layers):
        layer = f"layers.{i}"
        for name, inputs, outputs, bias in (
            ("attention.query", "embed", "heads", config.qkv_bias),
            ("attention.key", "embed", "kv_heads", config.qkv_bias),
            ("attention.value", "embed", "kv_heads", config.qkv_bias),
            ("attention.output", "heads", "embed", config.output_bias),
            ("mlp.gate", "embed", "mlp", config.mlp_bias),
            ("mlp.up", "embed", "mlp", config.mlp_bias),
            ("mlp.down", "mlp", "embed", config.mlp_bias),
        ):
            axes[f"{layer}.{name}.kernel"] = (inputs, outputs)
            if bias:
                axes[f"{layer}.{name}.bias"] = (outputs,)
            if name in adapted:
                axes[f"{layer}.{name}.lora_a"] = (inputs, None)
                axes[f"{layer}.{name}.lora_b"] = (None, outputs)
        norms = ("attention.query_norm", "attention.key_norm") if config.qk_norm else ()
        for name in (*norms, "attention_norm", "mlp_norm"):
            axes[f"{layer}.{name}.scale"] = (None,)
    if quantization is not None:
        for path in quantized_paths(axes):
            axes[path + SUFFIX] = scale_axes(path, axes[path])
    return axes


def inputs_axis(path: str) -> int:
    """The axis of a quantised parameter over which products are summed."""
    return 1 if path == "embed.embedding" else 0


def scale_axes(path: str, axes: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """Logical axes of its scales, by its own: that of the outputs."""
    return (axes[1 - inputs_axis(path)],)


def quantized_paths(paths: Iterable[str]) -> list[str]:
    """Those of a decoder's parameters that are int8 where its weights are quantised."""
    return [path for path in paths if path in ("embed.embedding", "head.kernel") or _KERNEL.fullmatch(path)]


def parameter_shardings(
    config: ModelConfig, mesh: Mesh, quantization: Quantization | None = None
) -> dict[str, NamedSharding]:
    """Where every parameter lives on ``mesh``, by its dotted path."""
    counts, found = axis_counts(config), parameter_axes(config, quantization=quantization)
    return {path: named_sharding(mesh, axes, counts) for path, axes in found.items()}
