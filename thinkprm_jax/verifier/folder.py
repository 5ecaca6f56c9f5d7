"""What a model's folder says of the kind of verifier that it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.data.discriminative import KEY
from thinkprm_jax.data.discriminative import TASK as DISCRIMINATIVE
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import SCORE_HEADS
from thinkprm_jax.model.fields import Fields

if TYPE_CHECKING:
    from thinkprm_jax.checkpoint.weights import ModelFiles

GENERATIVE = "generative"  # the `task` under KEY of config.json, as DISCRIMINATIVE


def read_kind(model: str | Path | ModelFiles) -> Mapping[str, Any]:
    """What a folder says under our key of config.json; {} where there is none, as in every folder that others
    wrote. An adapter without a config.json is of its base's kind.

    Raises:
      UserError: no such folder; config.json is not as described.
    """
    content, path = _read_config(model)
    kind = content.get(KEY, {})
    if not isinstance(kind, dict):
        raise UserError(f"{path}: {KEY} must be an object")
    if kind and kind.get("task") not in (GENERATIVE, DISCRIMINATIVE):
        raise UserError(
            f"{path}: {KEY}.task is {json.dumps(kind.get('task'))}, not {GENERATIVE} or {DISCRIMINATIVE}"
        )
    return kind


def require_generative(model: str | Path | ModelFiles) -> None:
    """A folder that says nothing of its kind passes: the released ThinkPRMs are such.

    Raises:
      UserError: the folder says that it is discriminative, or has a head of scores.
    """
    from thinkprm_jax.checkpoint.weights import find_model

    if read_kind(model).get("task") == DISCRIMINATIVE or read_architectures(model) & set(SCORE_HEADS):
        raise UserError(
            f"{find_model(model).config_folder} is a discriminative verifier: it writes no chains; "
            "DiscriminativePRM and `thinkprm evaluate` take it"
        )


def read_architectures(model: str | Path | ModelFiles) -> set[str]:
    """``architectures`` of config.json."""
    content, path = _read_config(model)
    return set(Fields(content, str(path)).words("architectures"))


def _read_config(model: str | Path | ModelFiles) -> tuple[dict[str, Any], Path]:
    """(content, path) of config.json, or of what stands for it."""
    from thinkprm_jax.checkpoint.huggingface import read_config_content
    from thinkprm_jax.checkpoint.weights import find_model

    content, source = read_config_content(find_model(model).config_folder)
    return content, Path(source)
