"""One tokenizer for trusted and untrusted text, over a checkpoint's tokenizer.json.

Trusted text may spell control tokens (`<think>`); untrusted text never can. Marking tokens as
special does not give that split: R1-Distill keeps `<think>` and `<｜User｜>` as added tokens that
are not special. So untrusted text goes through a copy of the tokenizer that has no added tokens
at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.tokenizer import chat_template
from thinkprm_jax.tokenizer.files import read_folder, resolve_folder, special_text

_PLACEHOLDER = "UNTRUSTEDMESSAGE{}END"  # letters and digits only: strip, split and JSON escapes leave it whole
_PLACEHOLDER_PATTERN = re.compile(r"UNTRUSTEDMESSAGE(\d+)END")
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
_MOST_RENDERED = 64  # chats


class Tokenizer:
    """Text to ids and back. ids are plain Python ints; nothing here adds a token that the text does
    not spell.

    Example:

        _, tokenizer = load_model("mini")
        ids = tokenizer.encode_plain("2 + 2 <think>")  # untrusted text: no control token in it
        tokenizer.decode(ids)
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: Mapping[str, Any], template: str | None) -> None:
        """`backend`: the whole tokenizer. `config`: tokenizer_config.json. `template`: jinja2
        source of the chat."""
        backend.no_truncation()
        backend.no_padding()
        self.chat_template = template
        self._rendered: dict[str, str] = {}
        self._backend = backend
        self._config = dict(config)
        named = {name: special_text(config.get(name)) for name in _NAMED_TOKENS}
        self._named = {name: text for name, text in named.items() if text is not None}
        # A named token may stand in the base vocabulary only; as an added token, untrusted text
        # cannot spell it.
        backend.add_special_tokens(
            [text for text in self._named.values() if backend.token_to_id(text) is not None]
        )
        self._added = backend.get_added_tokens_decoder()
        self.control_ids: dict[str, int] = {token.content: id for id, token in self._added.items()}
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.bos_id: int | None = self._named_id("bos_token")
        eos_id = self._named_id("eos_token")
        if eos_id is None:
            raise UserError("the tokenizer names no eos_token in its tokenizer_config.json")
        self.eos_id: int = eos_id
        pad_id = self._named_id("pad_token")
        self.pad_id: int = eos_id if pad_id is None else pad_id
        self._byte_level = self._find_byte_level()
        self._check_spaces()

    @classmethod
    def load(cls, path_or_id: str | Path) -> Tokenizer:
        """From a folder or a Hugging Face id. `UserError` (one line) where there is none or it
        cannot be read."""
        folder = resolve_folder(path_or_id)
        try:
            return cls(*read_folder(folder))
        except UserError as error:
            raise UserError(f"{path_or_id}: {error}") from error

    # Encoding

    def encode(self, text: str) -> list[int]:
        """ids [T] of trusted text: control strings become control ids. No begin-of-sentence token
        is added."""
        _check_encodable(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_plain(self, text: str, inner: bool = False) -> list[int]:
        """ids [T] of untrusted text: no control id, whatever the text spells.

        inner: the text follows a control token, so a tokenizer that marks the start of a text
        leaves the mark out.
        """
        _check_encodable(text)
        # The batched call computes no offsets, and other threads run meanwhile: training reads its data in one.
        plain = self._plain_inner if inner else self._plain
        ids = plain.encode_batch_fast([text], add_special_tokens=False)[0].ids
        # Tokenizers without byte fallback answer unknown characters with their <unk>, which is a
        # control token.
        for id in ids:
            if id in self._added:
                raise RequestError(f"the tokenizer can write a part of the text only as {self._added[id].content}")
        return ids

    def encode_inside(self, text: str) -> list[int]:
        """ids [T] of untrusted text that goes on behind other text, whatever that was: sentencepiece marks the
        start of a text, so it is seen after a newline, which joins no other token."""
        if self._byte_level:
            return self.encode_plain(text)
        return self.encode_plain("\n" + text)[len(self.encode_plain("\n")) :]

    def token_id(self, text: str) -> int:
        """The one id of `text` inside a running text; `UserError` if it is several tokens."""
        if text in self.control_ids:
            return self.control_ids[text]
        ids = self.encode_inside(text)
        if len(ids) != 1:
            raise UserError(f"{text!r} is {len(ids)} tokens in this tokenizer; one is needed")
        return ids[0]

    # Decoding

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of ids. Control tokens appear as their text unless skipped; ids beyond the
        vocabulary are empty."""
        kept = [int(id) for id in ids if not (skip_special and int(id) in self._added)]
        if self._byte_level:
            return b"".join(map(self.token_bytes, kept)).decode("utf-8", errors="replace")
        kept = [id for id in kept if 0 <= id < self.vocab_size]
        return self._backend.decode(kept, skip_special_tokens=False)

    def token_bytes(self, id: int) -> bytes:
        """UTF-8 bytes that one token adds to a running text (b"" beyond the vocabulary); they may
        split a character."""
        return self._bytes_table[id] if 0 <= id < self.vocab_size else b""

    @cached_property
    def _bytes_table(self) -> list[bytes]:
        table = [b""] * self.vocab_size
        to_bytes = _byte_level_bytes if self._byte_level else _sentencepiece_bytes
        for piece, id in self._backend.get_vocab(with_added_tokens=False).items():
            table[id] = to_bytes(piece)
        for text, id in self.control_ids.items():
            table[id] = text.encode("utf-8")
        return table

    # Chats

    def render_chat(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """The chat as one text. For people and logs: encode_chat is the safe way to ids."""
        template = self.chat_template
        if template is None:
            raise UserError("the tokenizer has no chat template")
        # Many chats differ in what is put in later (see encode_chat): a text is rendered once, if it has no date.
        key = json.dumps([template, add_generation_prompt, [dict(message) for message in messages]], default=repr)
        text = self._rendered.get(key)
        if text is None:
            text = chat_template.render(template, messages, add_generation_prompt, self._named)
            if len(self._rendered) >= _MOST_RENDERED:
                self._rendered.clear()
            if "strftime_now" not in template:
                self._rendered[key] = text
        return text

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> list[int]:
        """ids [T] of the chat: control tokens come from the template alone, message contents are
        plain text.

        The ids equal those of the rendered text wherever the contents spell no control token.
        Contents are never rewritten by what they spell: where R1's template would cut an assistant
        turn at `</think>`, it stays whole.
        """
        hidden: list[dict[str, Any]] = []
        contents: dict[int, str] = {}
        for index, message in enumerate(messages):
            content = message.get("content")
            if content is not None and not isinstance(content, str):
                raise RequestError(f"message {index}: the content is {type(content).__name__}, not text")
            if content and (core := content.strip()):
                # The blanks around stay visible to the template, which may strip them.
                blank_start, blank_end = content.split(core, 1)
                contents[index] = core
                message = {
                    **message,
                    "content": blank_start + _PLACEHOLDER.format(index) + blank_end,
                }
            hidden.append(dict(message))
        # re.split with one group: template text and placeholder numbers take turns.
        parts = _PLACEHOLDER_PATTERN.split(self.render_chat(hidden, add_generation_prompt))
        if sorted(map(int, parts[1::2])) != sorted(contents):
            raise UserError("the chat template does not keep each message exactly once")
        return self._encode_runs(parts, contents)

    def _encode_runs(self, parts: Sequence[str], contents: Mapping[int, str]) -> list[int]:
        """parts: template text at even places, message numbers at odd ones; contents: plain text of
        each message.

        Template text and content that touch are one run, since a token may reach over the seam.
        """
        ids: list[int] = []
        run = ""

        def close_run() -> None:
            nonlocal run
            ids.extend(self.encode_plain(run, inner=bool(ids)))
            run = ""

        blank_eater = False  # the last control token also takes the blanks after it (AddedToken.rstrip)
        for place, part in enumerate(parts):
            pieces = self._control_pattern.split(part) if place % 2 == 0 else [contents[int(part)]]
            for number, piece in enumerate(pieces):
                if number % 2 == 0:
                    run += piece.lstrip() if blank_eater and not run else piece
                    continue
                token = self._added[self.control_ids[piece]]
                run = run.rstrip() if token.lstrip else run
                close_run()
                ids.append(self.control_ids[piece])
                blank_eater = token.rstrip
        close_run()
        return ids

    # Files

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json (with the chat template) and
        special_tokens_map.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # The declared class decides how transformers rebuilds the tokenizer; this one takes
        # tokenizer.json as it is.
        config = {**self._config, "tokenizer_class": "PreTrainedTokenizerFast"}
        config.pop("auto_map", None)
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        self._backend.save(str(folder / "tokenizer.json"))
        for name, content in (
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", self._named),
        ):
            text = json.dumps(content, ensure_ascii=False, indent=2)
            (folder / name).write_text(text + "\n", encoding="utf-8")

    # Inside

    def _named_id(self, name: str) -> int | None:
        text = self._named.get(name)
        if text is None:
            return None
        id = self._backend.token_to_id(text)
        if id is None:
            raise UserError(f"the {name} {text!r} is not in the vocabulary")
        return id

    def _find_byte_level(self) -> bool:
        """True for byte-level BPE, False for sentencepiece pieces; nothing else can be detokenised
        token by token."""
        decoder = self._backend.decoder
        state = decoder.__getstate__().decode() if decoder is not None else ""
        if '"ByteLevel"' in state:
            return True
        if "▁" in state:
            return False
        raise UserError("only byte-level and sentencepiece tokenizers are supported")

    def _check_spaces(self) -> None:
        """Refuse a byte-level vocabulary behind sentencepiece rules: it would read ` Yes` as `Yes`."""
        for text in ("? Yes", "? No"):
            if self.decode(self.encode(text)) != text:
                raise UserError(f"the tokenizer does not keep spaces: {text!r} comes back as another text")

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        # Leftmost, then longest: the order in which the tokenizers library matches added tokens.
        texts = sorted(self.control_ids, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, texts)) + ")")

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The tokenizer without added tokens and without a post-processor."""
        model = self._backend.model
        if any(model.token_to_id(text) is not None for text in self.control_ids):
            return tokenizers.Tokenizer.from_str(json.dumps(self._plain_state()))
        plain = tokenizers.Tokenizer(model)  # shares the vocabulary: no second copy of 150,000 merges
        if self._backend.normalizer is not None:
            plain.normalizer = self._backend.normalizer
        if self._backend.pre_tokenizer is not None:
            plain.pre_tokenizer = self._backend.pre_tokenizer
        return plain

    @cached_property
    def _plain_inner(self) -> tokenizers.Tokenizer:
        """The same for text that follows a control token: no mark for the start of the text."""
        if self._byte_level:
            return self._plain
        state = self._plain_state()
        pre_tokenizer = state.get("pre_tokenizer") or {}
        for part in [pre_tokenizer, *pre_tokenizer.get("pretokenizers", [])]:
            if part.get("prepend_scheme") == "first":
                part["prepend_scheme"] = "never"
        return tokenizers.Tokenizer.from_str(json.dumps(state))

    def _plain_state(self) -> dict[str, Any]:
        """The JSON of the tokenizer without added tokens; a BPE vocabulary loses the control
        strings it holds."""
        state = json.loads(self._backend.to_str())
        state["added_tokens"] = []
        state["post_processor"] = None
        model = state["model"]
        if model["type"] == "BPE":
            drop = set(self.control_ids) - {model.get("unk_token")}
            model["vocab"] = {piece: id for piece, id in model["vocab"].items() if piece not in drop}
            model["merges"] = [
                merge for merge in model["merges"] if not drop.intersection([*merge, "".join(merge)])
            ]
        return state


def _check_encodable(text: str) -> None:
    """NUL and every other character has UTF-8 bytes; half of a surrogate pair has none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise RequestError(f"character {error.start} of the text is a lone surrogate (U+{code:04X})") from error


def _byte_alphabet() -> dict[str, int]:
    """The 256 characters by which byte-level BPE writes bytes: printable Latin-1 as itself, the
    rest from U+0100 up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _byte_level_bytes(piece: str) -> bytes:
    if all(character in _BYTES for character in piece):
        return bytes(_BYTES[character] for character in piece)
    return piece.encode("utf-8")


def _sentencepiece_bytes(piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode("utf-8")
