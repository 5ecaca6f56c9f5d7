"""The one door to weights: whatever a model is stored as, its tensors by name as floats."""

from __future__ import annotations

from pathlib import Path

from thinkprm_jax.checkpoint.formats.gguf import GgufTensors
from thinkprm_jax.checkpoint.pieces import TensorSource
from thinkprm_jax.checkpoint.stored import StoredTensors


def open_source(place: Path) -> TensorSource:
    """The tensors of a folder or of a GGUF file; nothing but headers is read yet.

    Raises:
      UserError: there are none, a file is damaged, or they are stored in a way that we do not have.
    """
    return GgufTensors(place) if place.is_file() else StoredTensors(place)
