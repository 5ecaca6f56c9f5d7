"""What kind of verifier a model folder holds, as its config.json says under the key ``thinkprm``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.checkpoint.weights import find_model
from thinkprm_jax.data.discriminative import KEY
from thinkprm_jax.data.discriminative import TASK as DISCRIMINATIVE
from thinkprm_jax.errors import UserError

GENERATIVE = "generative"


def read_kind(path_or_id: str | Path) -> Mapping[str, Any]:
    """The content of the key; {} where there is none, as in every folder that others wrote. An adapter without a
    config.json is of its base's kind.

    Raises:
      UserError: no such folder; config.json is not as described.
    """
    folder = find_model(path_or_id).config_folder
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: holds no config.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    kind = content.get(KEY, {}) if isinstance(content, dict) else {}
    if not isinstance(kind, dict):
        raise UserError(f"{path}: {KEY} must be an object")
    if kind and kind.get("task") not in (GENERATIVE, DISCRIMINATIVE):
        raise UserError(
            f"{path}: {KEY}.task is {json.dumps(kind.get('task'))}, not {GENERATIVE} or {DISCRIMINATIVE}"
        )
    return kind


def is_discriminative(path_or_id: str | Path) -> bool:
    return read_kind(path_or_id).get("task") == DISCRIMINATIVE


def require_generative(path_or_id: str | Path) -> None:
    """A folder that says nothing of its kind passes: the released ThinkPRMs are such.

    Raises:
      UserError: the folder says that it is discriminative.
    """
    if is_discriminative(path_or_id):
        raise UserError(
            f"{path_or_id} is a discriminative verifier: it writes no chains; DiscriminativePRM and "
            "`thinkprm evaluate` take it"
        )
