"""The model of a verifier, loaded; and the memory that it will take."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from thinkprm_jax.errors import UserError
from thinkprm_jax.verifier.folder import require_generative
from thinkprm_jax.verifier.settings import PlacementSettings, SamplingSettings, VerifierSettings

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.checkpoint.weights import ModelFiles
    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer


Settings = TypeVar("Settings", bound=VerifierSettings)


def load_sampler(
    settings: SamplingSettings, model: Decoder | None, tokenizer: Tokenizer | None, mesh: Mesh | None
) -> Sampler:
    """A sampler around the model of the settings, or around given objects.

    Raises:
      UserError: the model cannot be loaded, or is one that writes no chains.
    """
    from thinkprm_jax.sampler import Sampler

    if model is None:
        settings = with_files(settings)
        require_generative(find_files(settings))
    model, tokenizer = load_objects(settings, model, tokenizer, mesh)
    slots = settings.slots
    return Sampler(model, tokenizer, slots=slots, max_length=settings.max_length, mesh=mesh)


def load_objects(
    settings: PlacementSettings, model: Decoder | None, tokenizer: Tokenizer | None, mesh: Mesh | None
) -> tuple[Decoder, Tokenizer]:
    """The model of the settings and its tokenizer, or the given objects."""
    if model is not None and tokenizer is not None:
        return model, tokenizer
    if model is not None or tokenizer is not None:
        raise UserError("model and tokenizer go together: give both or neither")
    from thinkprm_jax.checkpoint.huggingface import load_model

    return load_model(find_files(settings), dtype=settings.dtype or "float32", mesh=mesh)


def find_files(settings: VerifierSettings) -> ModelFiles:
    """Where the model of the settings is.

    Raises:
      UserError: it is nowhere.
    """
    from thinkprm_jax.checkpoint.weights import find_model

    if settings.files is not None:
        return settings.files
    if settings.model is None:
        raise UserError(f"a verifier of kind {settings.kind} needs the path or id of a model")
    return find_model(settings.model)


def with_files(settings: Settings) -> Settings:
    """The settings with the place of their model, so that nobody looks for it again."""
    return dataclasses.replace(settings, files=find_files(settings))


@dataclass(frozen=True)
class VerifierMemory:
    """Bytes: parameters, and the cache once its longest row is full."""

    weights: int
    cache: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache


def verifier_memory(settings: VerifierSettings, mesh: Mesh | None = None) -> VerifierMemory:
    """What it will take, with a mesh on each of its devices; nothing is loaded. Activations are not in it."""
    if not settings.needs_model:
        return VerifierMemory(0)
    from thinkprm_jax.checkpoint.huggingface import read_config
    from thinkprm_jax.model.memory import cache_bytes, weight_bytes

    settings = settings.settled()
    assert isinstance(settings, PlacementSettings)
    config, dtype = read_config(find_files(settings).config_folder), settings.dtype or "float32"
    weights = weight_bytes(config, dtype, mesh)
    if not isinstance(settings, SamplingSettings):
        return VerifierMemory(weights)
    return VerifierMemory(weights, cache_bytes(config, settings.slots, settings.max_length, dtype, mesh))
