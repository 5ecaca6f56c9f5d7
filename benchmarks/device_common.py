"""What the parts of benchmarks/device.py share: shapes, random weights, and the file that figures go to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a part may have to do something before JAX starts, or have no need of it
    from thinkprm_jax.model.config import ModelConfig
    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

# vocabulary, width, inner width, layers, heads, KV heads, head width: the shapes of R1-Distill-Qwen
SIZES = {
    "tiny": (2_048, 256, 704, 4, 4, 2, 64),
    "1.5b": (151_936, 1_536, 8_960, 28, 12, 2, 128),
    "7b": (152_064, 3_584, 18_944, 28, 28, 4, 128),
    "14b": (152_064, 5_120, 13_824, 48, 40, 8, 128),
}
QWEN3 = {  # norms on the heads of q and k in place of biases; the small one is tied
    "qwen3-1.7b": (151_936, 2_048, 6_144, 28, 16, 8, 128),
    "qwen3-8b": (151_936, 4_096, 12_288, 36, 32, 8, 128),
}
SHAPES = (*SIZES, *QWEN3)
FILE = "device.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a part works on."""

    out: Path
    shape: str
    batches: tuple[int, ...]
    context: int
    new_tokens: tuple[int, int]  # of the two runs of a decode figure
    repeats: int
    bandwidth: float  # bytes a second, given or measured by the machine part; 0: unknown
    tiny: bool


class Figures:
    """Rows of one part in OUT/device.json, in place of those of an earlier run of it: written at every ``add``."""

    def __init__(self, out: Path, part: str) -> None:
        self._path, self._part = out / FILE, part
        self._rows = [row for row in read_rows(out) if row["part"] != part]

    def add(
        self, name: str, value: Any, unit: str = "", limit: Any = None, goal: str = "", note: str = ""
    ) -> None:
        row = {"part": self._part, "name": name, "value": value, "unit": unit}
        extra = {"limit": limit, "goal": goal, "note": note}
        self._rows.append(row | {key: item for key, item in extra.items() if item not in (None, "")})
        self._path.write_text(json.dumps(self._rows, indent=1) + "\n")
        print(f"{self._part}: {name}: {short(value)} {unit} {goal} {note}".rstrip(), flush=True)


def read_rows(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / FILE).read_text()) if (out / FILE).exists() else []


def short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


# The model


def shape_config(name: str) -> ModelConfig:
    from thinkprm_jax.model.config import ModelConfig

    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
    )  # fmt: skip
    if name in SIZES:
        return ModelConfig(**dict(zip(names, SIZES[name], strict=True)))
    config = ModelConfig(**dict(zip(names, QWEN3[name], strict=True)))
    tied = name == "qwen3-1.7b"
    return dataclasses.replace(config, model_type="qwen3", qkv_bias=False, qk_norm=True, tie_embeddings=tied)


def random_model(config: ModelConfig, dtype: str) -> Decoder:
    """Random weights whose logits are peaked like a language model's: the last norm is scaled for it."""
    import jax.numpy as jnp
    from flax import nnx

    from thinkprm_jax.model.decoder import Decoder

    model = Decoder(config, rngs=nnx.Rngs(0), param_dtype=jnp.dtype(dtype), dtype=jnp.dtype(dtype))
    scale = 8.0 / (0.02 * config.hidden_size**0.5)  # logits of a standard deviation of about 8
    model.norm.scale[...] = (model.norm.scale[...] * scale).astype(model.norm.scale.dtype)
    return model


def load_mini_tokenizer() -> Tokenizer:
    from thinkprm_jax import bundled
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

    return Tokenizer.load(Path(bundled.__file__).parent / "mini")
