"""A decoder with random weights and the bundled tokenizer: verdicts without sense, in a second."""

from __future__ import annotations

from pathlib import Path

from flax import nnx

from thinkprm_jax.checkpoint.huggingface import BUNDLED, save_model
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.tokenizer.tokenizer import Tokenizer


def load_tokenizer() -> Tokenizer:
    return Tokenizer.load(BUNDLED["mini"])


def make_config(tokenizer: Tokenizer, layers: int = 2) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=layers,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        tie_embeddings=True,
        eos_token_id=tokenizer.eos_id,
        initializer_range=0.2,  # large enough for chains that vary
    )


def make_decoder(tokenizer: Tokenizer, seed: int = 0, layers: int = 2) -> Decoder:
    return Decoder(make_config(tokenizer, layers), rngs=nnx.Rngs(seed))


def save_folder(folder: Path, seed: int = 0, layers: int = 2) -> Path:
    """The same as a Hugging Face folder, for programs; one layer compiles in half the time."""
    tokenizer = load_tokenizer()
    save_model(make_decoder(tokenizer, seed, layers), tokenizer, folder)
    return folder
