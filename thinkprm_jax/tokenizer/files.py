"""Finding and reading the files of a tokenizer: a local folder, or a Hugging Face id."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from thinkprm_jax.errors import UserError
from thinkprm_jax.gguf_header import gguf_of
from thinkprm_jax.tokenizer.gguf import read_gguf_tokenizer

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
TOKENIZER_FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
]


def resolve_folder(path_or_id: str | Path, files: Sequence[str] = TOKENIZER_FILES) -> Path:
    """The local folder of a tokenizer (or of other `files`, by name or pattern), or the GGUF file that stands for
    one; a Hugging Face id is downloaded first, or found in the hub's cache."""
    folder = Path(path_or_id).expanduser()
    gguf = gguf_of(folder)
    if gguf is not None:
        return gguf
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(str(path_or_id)):
        raise UserError(f"{path_or_id}: no such folder")
    import huggingface_hub  # here, since a local folder needs none of it

    try:
        return Path(huggingface_hub.snapshot_download(str(path_or_id), allow_patterns=list(files)))
    except Exception as error:  # the hub raises a dozen kinds: no such repository, gated, offline, time-out
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"{path_or_id}: no such folder, and not available from the Hugging Face Hub ({reason})"
        raise UserError(message) from error


def read_folder(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any], str | None]:
    """(tokenizer, tokenizer_config.json, chat template) of a folder or a GGUF file."""
    if folder.is_file():
        return read_gguf_tokenizer(folder)
    config = {
        **_read_json(folder / "special_tokens_map.json"),
        **_read_json(folder / "tokenizer_config.json"),
    }
    template = _read_template(folder, config)
    path = folder / "tokenizer.json"
    if path.exists():
        # The declared tokenizer_class is not consulted: tokenizer.json says everything, and the
        # class may contradict it.
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception
            raise UserError(f"tokenizer.json cannot be read ({error})") from error
        _add_declared_tokens(backend, config.get("added_tokens_decoder") or {})
        return backend, config, template
    if not (folder / "tokenizer.model").exists():
        raise UserError("holds no tokenizer.json and no tokenizer.model")
    return _convert_sentencepiece(folder), config, template


def special_text(value: Any) -> str | None:
    """The text of a special token as tokenizer_config.json writes it: a string, or an object with
    `content`."""
    return value.get("content") if isinstance(value, Mapping) else value


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path.name} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name} is not a JSON object")
    return content


def _read_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _add_declared_tokens(backend: tokenizers.Tokenizer, declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the tokens that only tokenizer_config.json lists, at the ids it gives them."""
    present = backend.get_added_tokens_decoder()
    for id, token in sorted((int(id), token) for id, token in declared.items()):
        if id in present:
            continue
        flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
        content = token["content"]
        backend.add_tokens([tokenizers.AddedToken(content, **{k: bool(token[k]) for k in flags if k in token})])
        if backend.token_to_id(content) != id:
            raise UserError(f"tokenizer_config.json puts {content!r} at {id}; tokenizer.json has no room there")


def _convert_sentencepiece(folder: Path) -> tokenizers.Tokenizer:
    """A folder with a sentencepiece model only: transformers knows how to convert it (seconds to
    import)."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer
    except Exception as error:  # whatever the converter meets
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"tokenizer.model cannot be converted ({reason})") from error
