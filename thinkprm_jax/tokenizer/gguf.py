"""A tokenizer from the metadata of a GGUF file.

The file has tokens, merges and special ids, and names the rule by which a text is cut before the merges. Of such
rules we have those of the released models of our families, each as their own ``tokenizer.json`` has it (NFC and
``ignore_merges`` included, which the file does not say). Another rule is refused by name: it would cut words
elsewhere, and the model would be asked something else than was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from thinkprm_jax.errors import UserError
from thinkprm_jax.gguf_header import read_header
from thinkprm_jax.tokenizer.sentencepiece_model import SentencePieceModel

# Kinds of tokens: llama.cpp's numbers.
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
_NAMED = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
# The words of GPT-2's successors. {} is what counts as a number: a digit, or up to three of them.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _Rule:
    """How a text becomes words. words: a pattern; None: GPT-2's, behind single digits where ``digits``."""

    words: str | None = None
    digits: bool = False
    nfc: bool = False
    whole_words: bool = False  # a word that is a token is not merged from its parts

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        if self.words is not None:
            split = pre_tokenizers.Split(Regex(self.words), behavior="isolated")
            return pre_tokenizers.Sequence(
                [split, pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)]
            )
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        if not self.digits:
            return byte_level
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


_QWEN = _Rule(_WORDS.format(r"\p{N}"), nfc=True)
_LLAMA3 = _Rule(_WORDS.format(r"\p{N}{1,3}"), whole_words=True)
_RULES = {
    "qwen2": _QWEN,
    "deepseek-r1-qwen": _QWEN,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "smollm": _Rule(digits=True),
    "gpt-2": _Rule(),
    "tekken": _Rule(_TEKKEN, whole_words=True),
}
# Files from before the rule had a name: the architectures that have had one rule only.
_RULE_OF = {"qwen2": "qwen2", "qwen3": "qwen2"}


def read_gguf_tokenizer(
    path: Path,
) -> tuple[tokenizers.Tokenizer | SentencePieceModel, dict[str, Any], str | None]:
    """(tokenizer, what tokenizer_config.json would say, chat template) of a GGUF file.

    Raises:
      UserError: it holds no tokenizer, or one of a kind that we do not have.
    """
    metadata = read_header(path).metadata
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise UserError(f"tokenizer.ggml.model {kind!r} is not supported (we have: gpt2, llama)")
    tokens = _column(metadata, "tokens", str)
    types = _column(metadata, "token_type", int, len(tokens)) or [1] * len(tokens)
    config: dict[str, Any] = {
        name: tokens[id] for name, key in _NAMED.items() if (id := _token_id(metadata, key, tokens)) is not None
    }
    config["add_bos_token"] = bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama"))
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise UserError("tokenizer.chat_template is no text")
    if kind == "llama":
        return _sentencepiece(metadata, tokens, types), config, template
    backend = _byte_level(metadata, tokens, types)
    _add_tokens(backend, tokens, types)
    if config["add_bos_token"] and "bos_token" in config:
        bos = config["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    return backend, config, template


def _column(metadata: Mapping[str, Any], name: str, kind: type, length: int | None = None) -> list[Any]:
    """An array of tokenizer.ggml; [] where there is none of a given ``length``."""
    found = metadata.get(f"tokenizer.ggml.{name}", [] if length is not None else None)
    if not isinstance(found, list) or not all(isinstance(value, kind) for value in found):
        raise UserError(f"tokenizer.ggml.{name} is {'missing' if found is None else 'no array of its kind'}")
    if length is not None and len(found) not in (0, length):
        raise UserError(f"tokenizer.ggml.{name} has {len(found)} entries for {length} tokens")
    return found


def _token_id(metadata: Mapping[str, Any], key: str, tokens: Sequence[str]) -> int | None:
    id = metadata.get(f"tokenizer.ggml.{key}")
    if id is None or id == 2**32 - 1:  # written for "none" by some converters
        return None
    if not isinstance(id, int) or not 0 <= id < len(tokens):
        raise UserError(f"tokenizer.ggml.{key} is {id!r}, of {len(tokens)} tokens")
    return id


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> tokenizers.Tokenizer:
    """BPE over bytes, as GPT-2 began it."""
    architecture = metadata.get("general.architecture")
    name = metadata.get("tokenizer.ggml.pre") or _RULE_OF.get(str(architecture))
    rule = _RULES.get(str(name))
    if rule is None:
        have = ", ".join(_RULES)
        raise UserError(f"tokenizer.ggml.pre {name!r} is not supported (we have: {have}); take its safetensors")
    # Added tokens at the end stay outside the vocabulary, as in the files of Qwen and Llama: untrusted text is
    # encoded without them, and a vocabulary that is free of them needs no copy for that.
    base = len(tokens)
    while base and types[base - 1] in (_CONTROL, _USER_DEFINED, _UNUSED):
        base -= 1
    if list(types[base:]) != sorted(types[base:], key=lambda kind: kind == _UNUSED):
        base = len(tokens)  # a gap between them: only a vocabulary says at which ids they are
    vocabulary = {token: id for id, token in enumerate(tokens[:base]) if types[id] != _UNUSED}
    if len(vocabulary) != base - sum(kind == _UNUSED for kind in types[:base]):
        raise UserError("tokenizer.ggml.tokens has a token twice")
    merges = [tuple(merge.split(" ", 1)) for merge in _column(metadata, "merges", str)]
    try:
        model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule.whole_words)
    except Exception as error:  # the library raises a bare Exception, of a merge of what is no token for one
        raise UserError(f"tokenizer.ggml.merges do not fit the tokens ({error})") from None
    backend = tokenizers.Tokenizer(model)
    if rule.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = rule.pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    return backend


def _add_tokens(backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Control tokens and those of users, at their ids. Unused ids are room in the embedding and no tokens."""
    for id, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind not in (_CONTROL, _USER_DEFINED):
            continue
        backend.add_tokens([AddedToken(token, special=kind == _CONTROL, normalized=False)])
        if backend.token_to_id(token) != id:
            raise UserError(f"tokenizer.ggml.tokens has {token!r} at {id}, behind a gap or twice")


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> SentencePieceModel:
    """The tokenizer.model from which llama.cpp's converter took the pieces: their types have the same numbers."""
    from sentencepiece import sentencepiece_model_pb2

    scores = _column(metadata, "scores", float, len(tokens)) or [0.0] * len(tokens)
    schema: Any = sentencepiece_model_pb2  # made by protobuf: its classes have no types
    model = schema.ModelProto()
    try:
        for token, score, kind in zip(tokens, scores, types, strict=True):
            model.pieces.add(piece=token, score=score, type=kind)
        trainer, normaliser = model.trainer_spec, model.normalizer_spec
        trainer.model_type, trainer.byte_fallback = trainer.BPE, 6 in types
        trainer.vocab_size = len(tokens)
        for name, key in (("unk", "unknown"), ("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
            id = _token_id(metadata, f"{key}_token_id", tokens)
            setattr(trainer, f"{name}_id", -1 if id is None else id)
            if id is not None:
                setattr(trainer, f"{name}_piece", tokens[id])
        normaliser.name = "identity"
        normaliser.add_dummy_prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
        normaliser.remove_extra_whitespaces = bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces", False))
        return SentencePieceModel(model.SerializeToString())
    except UserError:
        raise
    except Exception as error:  # of sentencepiece and protobuf, whatever does not fit together
        raise UserError(f"tokenizer.ggml.tokens make no sentencepiece model ({error})") from None
