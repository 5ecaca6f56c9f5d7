"""The model of a verifier, loaded."""

from __future__ import annotations

import dataclasses
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
    return Sampler(
        model,
        tokenizer,
        slots=settings.slots,
        max_length=settings.max_length,
        mesh=mesh,
        drafts=settings.drafts,
    )


def load_objects(
    settings: PlacementSettings, model: Decoder | None, tokenizer: Tokenizer | None, mesh: Mesh | None
) -> tuple[Decoder, Tokenizer]:
    """The model of the settings and its tokenizer, or the given objects."""
    if model is not None and tokenizer is not None:
        return model, tokenizer
    if model is not None or tokenizer is not None:
        raise UserError("model and tokenizer go together: give both or neither")
    from thinkprm_jax.checkpoint.huggingface import load_model

    return load_model(find_files(settings), settings.dtype or "float32", mesh, settings.quantize)


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


def with_fingerprints(settings: Settings) -> Settings:
    """The settings with the fingerprints of their model's files, so that rows say by which they were made. A
    program asks for them before its first new row.

    Raises:
      UserError: the model is nowhere, or its files cannot be read.
    """
    if not settings.needs_model:
        return settings.identified()
    from thinkprm_jax.checkpoint.fingerprint import fingerprints

    files = find_files(settings)
    return dataclasses.replace(settings, files=files, fingerprints=fingerprints(files))
