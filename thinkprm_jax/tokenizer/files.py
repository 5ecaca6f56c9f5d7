"""Finding and reading the files of a tokenizer: a local folder, or a Hugging Face id."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from thinkprm_jax.errors import UserError, reading
from thinkprm_jax.gguf_header import SUFFIX, gguf_of, read_header
from thinkprm_jax.storage import ObjectPath, local_copy, location
from thinkprm_jax.tokenizer.gguf import read_gguf_tokenizer
from thinkprm_jax.tokenizer.sentencepiece_model import SentencePieceModel
from thinkprm_jax.user_files import check_whole, check_whole_file, read_json, read_text

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
TOKENIZER_FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
]
_VOCABULARIES = ("tokenizer.json", "tokenizer.model")  # the first that is there is read
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
# In the order in which transformers adds them.
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
UNNAMED = "extra_special_tokens"
_SENTENCE_ENDS = ("bos_token", "eos_token")  # a model that never saw them does not write them
_MOST_TEMPLATE = 2**20  # bytes


def resolve_folder(path_or_id: str | Path, files: Sequence[str] = TOKENIZER_FILES) -> Path:
    """The local folder of a tokenizer (or of other `files`, by name or pattern), or the GGUF file that stands for
    one; a Hugging Face id is downloaded first, or found in the hub's cache."""
    address = _address(path_or_id)
    if isinstance(address, ObjectPath):
        return local_copy(address, files)
    path_or_id = address
    with reading(str(path_or_id)[:200]):  # a name that is no name of a file
        folder = Path(path_or_id).expanduser()
        gguf = gguf_of(folder)
        if gguf is not None:
            return gguf
        if folder.is_dir():
            return folder
        if folder.suffix == SUFFIX:
            return _download_file(str(path_or_id))
        if folder.exists() or not _HUB_ID.fullmatch(str(path_or_id)):
            raise UserError(f"{path_or_id}: no such folder")
    import huggingface_hub  # here, since a local folder needs none of it

    try:
        return Path(huggingface_hub.snapshot_download(str(path_or_id), allow_patterns=list(files)))
    except Exception as error:  # the hub raises a dozen kinds: no such repository, gated, offline, time-out
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"{path_or_id}: no such folder, and not available from the Hugging Face Hub ({reason})"
        raise UserError(message) from error


def _address(path_or_id: str | Path) -> str | Path | ObjectPath:
    """What is in a store; of `hf://OWNER/NAME` the id, which the hub's own cache serves."""
    if os.fspath(path_or_id).startswith("hf:"):
        name = str(location(path_or_id)).removeprefix("hf://").removeprefix("models/")
        return name if _HUB_ID.fullmatch(name) or name.endswith(SUFFIX) else location(path_or_id)
    place = location(path_or_id)
    return place if isinstance(place, ObjectPath) else path_or_id


def _download_file(name: str) -> Path:
    """A GGUF file of the hub, which has many of a model: OWNER/NAME/FILE.gguf."""
    repository, _, file = name.rpartition("/")
    if repository.count("/") != 1 or not _HUB_ID.fullmatch(repository):
        raise UserError(f"{name}: no such file")
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, file))
    except Exception as error:  # as in resolve_folder
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name}: no such file, and not available from the Hugging Face Hub ({reason})") from error


def read_folder(
    folder: Path,
) -> tuple[tokenizers.Tokenizer | SentencePieceModel, dict[str, Any], str | None]:
    """(tokenizer, tokenizer_config.json, chat template) of a folder or a GGUF file.

    A tokenizer.json is read by the library tokenizers, a tokenizer.model by the library sentencepiece; the first
    wins where both are there. Tokens that only the other files list with an id are in the tokenizer, at that id;
    those that the configuration names are added by :func:`add_named_tokens`.
    """
    if folder.is_file():
        return read_gguf_tokenizer(folder)
    config = _read_config(folder)
    template = _read_template(folder, config)
    declared = _declared_tokens(folder, config)
    backend: tokenizers.Tokenizer | SentencePieceModel
    path = folder / "tokenizer.json"
    if path.exists():
        # The declared tokenizer_class is not consulted: tokenizer.json says everything, and the
        # class may contradict it.
        with reading("tokenizer.json"):
            check_whole_file(path, path.name)
            backend = tokenizers.Tokenizer.from_file(str(path))
    elif (folder / "tokenizer.model").exists():
        with reading("tokenizer.model"):
            content = (folder / "tokenizer.model").read_bytes()
            check_whole(content, "tokenizer.model")
            backend = SentencePieceModel(
                content,
                prefix_each_run=config.get("legacy") is not False,
            )
        for name, text in backend.named.items():
            config.setdefault(name, text)
    else:
        raise UserError("holds no tokenizer.json and no tokenizer.model")
    with reading("tokenizer_config.json"):
        for id, token in sorted(declared.items()):
            _declare(backend, id, token)
    return backend, config, template


def text_fingerprints(folder: Path) -> dict[str, str]:
    """`tokenizer` and `chat_template` of a folder or a GGUF file: digests of what decides which ids a text has,
    and what stands around the turns of a chat.

    Raises:
      UserError: a file cannot be read.
    """
    if folder.is_file():
        said = {
            name: value for name, value in read_header(folder).metadata.items() if name.startswith("tokenizer.")
        }
        template = said.pop("tokenizer.chat_template", None)
        return {"tokenizer": digest_of(said), "chat_template": digest_of(template)}
    config = _read_config(folder)
    template = _read_template(folder, config)
    names = ("added_tokens_decoder", "additional_special_tokens", UNNAMED, "legacy")
    said = {name: value for name, value in config.items() if name in names or name.endswith("_token")}
    vocabulary = next((folder / name for name in _VOCABULARIES if (folder / name).exists()), None)
    with reading("tokenizer"):
        content = b"" if vocabulary is None else vocabulary.read_bytes()
    tokenizer = digest_of(said, _read_optional(folder, "added_tokens.json"), hashlib.sha256(content).hexdigest())
    return {"tokenizer": tokenizer, "chat_template": digest_of(template)}


def digest_of(*values: Any) -> str:
    """Of values of JSON, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def special_text(value: Any) -> str | None:
    """The text of a special token as tokenizer_config.json writes it: a string, or an object with
    `content`."""
    return value.get("content") if isinstance(value, Mapping) else value


def _read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, and what only the older special_tokens_map.json says."""
    older, config = (_read_optional(folder, name) for name in ("special_tokens_map.json", "tokenizer_config.json"))
    # As transformers has it: the older file is meant where the newer one lists no tokens.
    return {**older, **config} if "added_tokens_decoder" in config else {**config, **older}


def _read_optional(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).exists():
        return {}
    try:
        return read_json(folder / name)
    except UserError as error:  # the folder is said by whoever asked for it
        raise UserError(str(error).replace(str(folder / name), name)) from error


def _read_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return read_text(path, _MOST_TEMPLATE, path.name)
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates
        with reading("tokenizer_config.json: chat_template"):
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if template is not None and not isinstance(template, str):
        raise UserError("tokenizer_config.json: chat_template is no text")
    return template


def _declared_tokens(folder: Path, config: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """id -> content and flags of the tokens that are listed beside the tokenizer, with their ids."""
    with reading("tokenizer_config.json: added_tokens_decoder"):
        if "added_tokens_decoder" in config:
            return {int(id): dict(token) for id, token in (config["added_tokens_decoder"] or {}).items()}
        texts = (special_text(token) for _, token in named_tokens(config))
        special = {text for text in texts if isinstance(text, str)}  # of the others add_named_tokens complains
    with reading("added_tokens.json"):
        return {
            int(id): {"content": text, "normalized": text not in special, "special": text in special}
            for text, id in _read_optional(folder, "added_tokens.json").items()
        }


def named_tokens(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, text or object) of every token that the configuration calls by a name, and then the others that it
    lists without one."""
    extra = config.get(UNNAMED) or config.get("additional_special_tokens") or []
    own = {name: token for name, token in config.items() if name.endswith("_token") and name not in _NAMED}
    named = {name: config.get(name) for name in _NAMED} | own | (dict(extra) if isinstance(extra, Mapping) else {})
    for name, token in named.items():  # `add_bos_token` is a switch
        if isinstance(token, (str, Mapping)) or (name in _NAMED and token is not None):
            yield name, token
    if not isinstance(extra, Mapping):
        yield from ((UNNAMED, token) for token in extra)


def _declare(backend: tokenizers.Tokenizer | SentencePieceModel, id: int, token: Mapping[str, Any]) -> None:
    """Adds a token at its id; of one that is there, flags that differ are those of ``token``."""
    content = token["content"]
    present = backend.get_added_tokens_decoder().get(id)
    if present is None or present.content != content:
        present = tokenizers.AddedToken(content)
    known = {name: getattr(present, name) for name in _FLAGS}
    flags = known | {name: bool(token[name]) for name in _FLAGS if name in token}
    if isinstance(backend, SentencePieceModel):
        backend.declare(id, tokenizers.AddedToken(content, **flags))
    elif flags != known or id not in backend.get_added_tokens_decoder():
        backend.add_tokens([tokenizers.AddedToken(content, **flags)])
        if backend.token_to_id(content) != id:
            raise UserError(f"tokenizer_config.json puts {content!r} at {id}; tokenizer.json has no room there")


def add_named_tokens(backend: tokenizers.Tokenizer | SentencePieceModel, config: Mapping[str, Any]) -> None:
    """Makes special tokens of those that the configuration names and that are none yet; at new ids, where the
    vocabulary lacks them. What is there keeps its flags."""
    present = {added.content for added in backend.get_added_tokens_decoder().values()}
    for name, token in named_tokens(config):
        text = special_text(token)
        if not isinstance(text, str) or not text:
            raise UserError(f"tokenizer_config.json: {name} is no text")
        if text in present:
            continue
        if name in _SENTENCE_ENDS and backend.token_to_id(text) is None:
            raise UserError(f"the {name} {text!r} is not in the vocabulary")
        given = token if isinstance(token, Mapping) else {"special": True}
        flags = {flag: bool(given[flag]) for flag in _FLAGS if flag in given}
        special = name != UNNAMED or flags.get("special", False)
        backend.add_tokens([tokenizers.AddedToken(text, **{**flags, "special": special})])
        present.add(text)
