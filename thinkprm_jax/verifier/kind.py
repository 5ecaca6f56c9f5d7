"""What kind of verifier a model folder holds: as its config.json says, or as its name does.

Folders of ours say it under the key ``thinkprm``; Qwen's process reward models have an architecture of their own;
the others are plain language models, which only their names tell apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.checkpoint.weights import find_model
from thinkprm_jax.data.discriminative import KEY
from thinkprm_jax.data.discriminative import TASK as DISCRIMINATIVE
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import SCORE_HEADS

GENERATIVE = "generative"
STEPWISE_KINDS = ("disc_prm", "math_shepherd", "rlhflow", "qwen_prm")  # they write no chains
KINDS = ("thinkprm", "judge", *STEPWISE_KINDS, "majority")
# Names of the original's recipes. "discriminative" is whichever kind the path is of.
ALIASES = {"none": "majority"}
ANY_DISCRIMINATIVE = "discriminative"

# Of an id or a folder's name, in lower case: what prm_path of the original's recipes names, and sisters.
_NAMES = (
    (re.compile(r"math-shepherd.*prm"), "math_shepherd"),
    (re.compile(r"llama3\.1-8b-prm-(mistral|deepseek)-data"), "rlhflow"),
    (re.compile(r"qwen2\.5-math-(prm-\d+b|7b-prm800k)"), "qwen_prm"),
    (re.compile(r"discriminative-prm800k"), "disc_prm"),
    (re.compile(r"(\A|/)mini\Z|thinkprm"), "thinkprm"),
)


def read_kind(path_or_id: str | Path) -> Mapping[str, Any]:
    """The content of the key; {} where there is none, as in every folder that others wrote. An adapter without a
    config.json is of its base's kind.

    Raises:
      UserError: no such folder; config.json is not as described.
    """
    content, path = _read_config(path_or_id)
    kind = content.get(KEY, {})
    if not isinstance(kind, dict):
        raise UserError(f"{path}: {KEY} must be an object")
    if kind and kind.get("task") not in (GENERATIVE, DISCRIMINATIVE):
        raise UserError(
            f"{path}: {KEY}.task is {json.dumps(kind.get('task'))}, not {GENERATIVE} or {DISCRIMINATIVE}"
        )
    return kind


def recognise(path_or_id: str | Path) -> str | None:
    """One of KINDS; None where neither the folder nor its name says it. A known id is not downloaded for that.

    Raises:
      UserError: as of :func:`read_kind`.
    """
    is_folder = Path(path_or_id).is_dir()
    name = (Path(path_or_id).resolve().name if is_folder else str(path_or_id)).lower()  # not where a folder lies
    named = next((kind for pattern, kind in _NAMES if pattern.search(name)), None)
    if named is not None and not is_folder:
        return named
    task = read_kind(path_or_id).get("task")
    if task is not None:
        return "thinkprm" if task == GENERATIVE else "disc_prm"
    return "qwen_prm" if _has_score_head(path_or_id) else named


def resolve_kind(prm_type: str | None, path: str | Path | None, default: str | None = None) -> str:
    """The kind that a recipe or a command line means.

    Args:
      prm_type: one of KINDS, ``none``, the original's ``discriminative``, or None: as the path says.
      default: of a path that says nothing.
    Raises:
      UserError: there is no such kind, or it is not the path's.
    """
    kind = ALIASES.get(prm_type, prm_type) if prm_type is not None else None
    if kind is not None and kind not in (*KINDS, ANY_DISCRIMINATIVE):
        raise UserError(f"there is no verifier {prm_type!r} (we have: {', '.join((*KINDS, *ALIASES))})")
    if kind == "majority":
        return kind
    if path is None:
        raise UserError(f"a verifier of kind {kind or 'unknown'} needs the path or id of a model")
    found = recognise(path)
    if kind is None or kind == ANY_DISCRIMINATIVE:
        found = found or (default if kind is None else None)
        if found is None:
            raise UserError(
                f"{path}: neither config.json nor the name says what kind of verifier this is; say one of "
                f"{', '.join(KINDS)}"
            )
        if kind == ANY_DISCRIMINATIVE and found not in STEPWISE_KINDS:
            raise UserError(f"{path} is of kind {found}, which is not discriminative")
        return found
    if found is not None and found != kind and (found in STEPWISE_KINDS or kind in STEPWISE_KINDS):
        raise UserError(f"{path} is a verifier of kind {found}, not {kind}")
    return kind


def is_discriminative(path_or_id: str | Path) -> bool:
    """Whether the folder says that it is a discriminative verifier of ours."""
    return read_kind(path_or_id).get("task") == DISCRIMINATIVE


def require_generative(path_or_id: str | Path) -> None:
    """A folder that says nothing of its kind passes: the released ThinkPRMs are such.

    Raises:
      UserError: the folder says that it is discriminative.
    """
    if is_discriminative(path_or_id) or _has_score_head(path_or_id):
        raise UserError(
            f"{path_or_id} is a discriminative verifier: it writes no chains; DiscriminativePRM and "
            "`thinkprm evaluate` take it"
        )


def _has_score_head(path_or_id: str | Path) -> bool:
    architectures = _read_config(path_or_id)[0].get("architectures") or []
    return any(name in SCORE_HEADS for name in architectures)


def _read_config(path_or_id: str | Path) -> tuple[dict[str, Any], Path]:
    """(content, path) of config.json; an array or the like counts as empty."""
    folder = find_model(path_or_id).config_folder
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: holds no config.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    return (content if isinstance(content, dict) else {}), path
