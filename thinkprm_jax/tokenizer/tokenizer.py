"""One tokenizer for trusted and untrusted text, over a checkpoint's tokenizer.json or tokenizer.model.

Trusted text may spell control tokens (`<think>`); untrusted text never can. Marking tokens as
special does not give that split: R1-Distill keeps `<think>` and `<｜User｜>` as added tokens that
are not special. So untrusted text goes through a copy of the tokenizer that has no added tokens
at all, but those that are plain text: a letter, or blanks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from thinkprm_jax.errors import RequestError, TooLong, UserError, is_failure, reading
from thinkprm_jax.errors import reason as reason_of
from thinkprm_jax.tokenizer import chat_template
from thinkprm_jax.tokenizer.files import (
    UNNAMED,
    add_named_tokens,
    named_tokens,
    read_folder,
    resolve_folder,
    special_text,
)
from thinkprm_jax.tokenizer.pieces import (
    NO_TOKEN,
    byte_level_bytes,
    is_byte_level,
    is_plain,
    may_collapse,
    piece_bytes,
)
from thinkprm_jax.tokenizer.plain import Start, plain_copy
from thinkprm_jax.tokenizer.sentencepiece_model import SentencePieceModel

_PLACEHOLDER = "UNTRUSTEDMESSAGE{}END"  # letters and digits only: strip, split and JSON escapes leave it whole
_PLACEHOLDER_PATTERN = re.compile(r"UNTRUSTEDMESSAGE(\d+)END")
# Where a content stands while control tokens are looked for: a letter or no letter, in no token of any vocabulary.
_WORD, _NO_WORD = "\ua66e", "\ue0ba"
_MOST_RENDERED = 64  # chats
_USUAL_TOKEN = 16  # characters; texts of more than this for every token that there is room for are counted
_NORMALISED = 3  # characters of a text that a normaliser may join in one


class Tokenizer:
    """Text to ids and back. ids are plain Python ints; nothing here adds a token that the text does
    not spell.

    Example:

        _, tokenizer = load_model("mini")
        ids = tokenizer.encode_plain("2 + 2 <think>")  # untrusted text: no control token in it
        tokenizer.decode(ids)

    Attributes:
      control_ids: the tokens that only trusted text and templates write, by their text.
      vocab_size: one above the highest id.
      bos_id, eos_id, pad_id: of the tokens that the configuration names; padding is the end where it names none.
      source: where it, or its chat template, is from, for messages; None: nobody said.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer | SentencePieceModel,
        config: Mapping[str, Any],
        template: str | None,
    ) -> None:
        """`backend`: the whole tokenizer. `config`: tokenizer_config.json. `template`: jinja2
        source of the chat."""
        with reading("tokenizer_config.json"):
            add_named_tokens(backend, config)
            named = {name: special_text(token) for name, token in named_tokens(config) if name != UNNAMED}
        self._named = {name: text for name, text in named.items() if text is not None}
        self._model = backend if isinstance(backend, SentencePieceModel) else JsonModel(backend)
        self._config = dict(config)
        self.chat_template = template
        self.source: str | None = None
        self._rendered: dict[str, str] = {}
        added = backend.get_added_tokens_decoder()
        self._control = {id: token for id, token in added.items() if not is_plain(token)}
        self.control_ids: dict[str, int] = {token.content: id for id, token in self._control.items()}
        self.vocab_size: int = self._model.size
        self.bos_id: int | None = self._named_id("bos_token")
        eos_id = self._named_id("eos_token")
        if eos_id is None:
            raise UserError("the tokenizer names no eos_token in its tokenizer_config.json")
        self.eos_id: int = eos_id
        pad_id = self._named_id("pad_token")
        self.pad_id: int = eos_id if pad_id is None else pad_id
        self._check_spaces()

    @classmethod
    def load(cls, path_or_id: str | Path) -> Tokenizer:
        """From a folder or a Hugging Face id. `UserError` (one line) where there is none or it
        cannot be read."""
        folder = resolve_folder(path_or_id)
        try:
            with reading("tokenizer"):
                found = cls(*read_folder(folder))
        except (UserError, RequestError) as error:  # a tokenizer that cannot read a few words is none
            raise UserError(f"{path_or_id}: {error}") from error
        found.source = str(path_or_id)
        return found

    def fault(self, what: str) -> UserError:
        """What is wrong with it, with the place that it is from."""
        return UserError(what if self.source is None else f"{self.source}: {what}")

    # Encoding

    def encode(self, text: str) -> list[int]:
        """ids [T] of trusted text: control strings become control ids. No begin-of-sentence token
        is added."""
        _check_encodable(text)
        if isinstance(self._model, JsonModel):
            return self._model.encode_whole(text)
        marks = self._trusted_marks.find(text)
        return self._encode_around(marks, text, {}, trusted=True)

    def encode_plain(self, text: str, inner: bool = False) -> list[int]:
        """ids [T] of untrusted text: no control id, whatever the text spells.

        inner: the text follows a control token, so a tokenizer that marks the start of a text
        leaves the mark out.
        """
        _check_encodable(text)
        return self._encode_run(text, _ANY_CONTROL if inner else None)

    def encode_inside(self, text: str) -> list[int]:
        """ids [T] of untrusted text that goes on behind other text, whatever that was: sentencepiece marks the
        start of a text, so it is seen after a newline, which joins no other token."""
        if self._model.byte_level:
            return self.encode_plain(text)
        return self.encode_plain("\n" + text)[len(self.encode_plain("\n")) :]

    def token_id(self, text: str) -> int:
        """The one id of `text` inside a running text; `UserError` if it is several tokens."""
        if text in self.control_ids:
            return self.control_ids[text]
        ids = self.encode_inside(text)
        if len(ids) != 1:
            raise self.fault(f"{text!r} is {len(ids)} tokens in this tokenizer; one is needed")
        return ids[0]

    def check_fits(self, text: str, most: int, positions: int | None = None) -> None:
        """Refuses untrusted text that cannot fit, before all of it is tokenized: that takes 300 bytes of memory
        for each of its characters.

        Args:
          most: tokens that there is room for. positions: the model's; None: ``most``.
        Raises:
          TooLong: the text has more tokens.
        """
        part = _USUAL_TOKEN * most
        while part < len(text):  # an eighth more, since a token may reach over the end of a part
            counted = len(self.encode_plain(text[:part]))
            about = counted * len(text) // part
            certain = 0 if self._model.collapses else len(text) // (self._longest_token * _NORMALISED)
            if counted > most + most // 8 or certain > most:
                message = f"the text has about {about:,} tokens: with max_length {most} there is no room for it"
                raise TooLong(message, max(about, most + 1), positions or most)
            part *= 2

    # Decoding

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of ids. Control tokens appear as their text unless skipped; ids beyond the
        vocabulary are empty."""
        kept = [int(id) for id in ids if not (skip_special and int(id) in self._control)]
        if self._model.byte_level:
            return b"".join(self.pieces(kept)).decode("utf-8", errors="replace")
        return self._model.decode([id for id in kept if id in self._bytes_table])

    def token_bytes(self, id: int) -> bytes:
        """UTF-8 bytes that one token adds to a running text (b"" beyond the vocabulary); they may
        split a character."""
        return self._bytes_table.get(id, b"")

    def pieces(self, ids: Iterable[int]) -> list[bytes]:
        """:meth:`token_bytes` of each id."""
        find = self._bytes_table.get
        return [find(id, b"") for id in ids]

    @cached_property
    def _bytes_table(self) -> dict[int, bytes]:
        return self._model.table()

    @cached_property
    def _longest_token(self) -> int:
        """In bytes."""
        return max(map(len, self._bytes_table.values()))

    # Chats

    def render_chat(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """The chat as one text. For people and logs: encode_chat is the safe way to ids."""
        template = self.chat_template
        if template is None:
            raise self.fault("the tokenizer has no chat template")
        # Many chats differ in what is put in later (see encode_chat): a text is rendered once, if it has no date.
        key = json.dumps([template, add_generation_prompt, [dict(message) for message in messages]], default=repr)
        text = self._rendered.get(key)
        if text is None:
            try:
                text = chat_template.render(template, messages, add_generation_prompt, self._named)
            except UserError as error:
                raise self.fault(str(error)) from error
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
            raise self.fault("the chat template does not keep each message exactly once")
        text, places = "", {}
        for place, part in enumerate(parts):
            if place % 2 == 0:
                text += part
            else:
                content = places[len(text)] = contents[int(part)]
                _check_encodable(content)
                # What stands beside a control token decides whether it is one (AddedToken.single_word).
                text += "".join(_WORD if re.match(r"\w", end) else _NO_WORD for end in (content[0], content[-1]))
        return self._encode_around(self._marks.find(text), text, places)

    def _encode_around(
        self, marks: list[tuple[int, int, str]], text: str, places: Mapping[int, str], trusted: bool = False
    ) -> list[int]:
        """ids of a text with control tokens.

        Template text and content that touch are one run, since a token may reach over the seam.

        Args:
          marks: (start, end, text) of the control tokens. places: where contents stand in ``text``, as two
          characters each.
        """
        ids: list[int] = []
        at, before = 0, None
        for start, end, mark in [*marks, (len(text), len(text), None)]:
            run = ""
            for place in [place for place in places if at <= place < start]:
                run += text[at:place] + places[place]
                at = place + 2
            run += text[at:start]
            ids += self._encode_run(run, before, trusted)
            at = end
            if mark is not None:
                before = self.control_ids[mark]
                ids.append(before)
        return ids

    def _encode_run(self, run: str, before: int | None, trusted: bool = False) -> list[int]:
        """before: the control token that the run follows; None: it is the start."""
        if not run:
            return []
        try:
            ids = self._model.encode(run, before, trusted)
        except BaseException as error:
            raise _refusal(error) from error
        # Tokenizers without byte fallback answer unknown characters with their <unk>, which is a
        # control token.
        for id in ids:
            if id in self._control and not trusted:
                raise RequestError(
                    f"the tokenizer can write a part of the text only as {self._control[id].content}"
                )
        return ids

    # Files

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json or tokenizer.model, whichever was read, tokenizer_config.json (with the chat
        template) and special_tokens_map.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = dict(self._config)
        config.pop("auto_map", None)
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        if isinstance(self._model, SentencePieceModel):
            config = {
                "tokenizer_class": "LlamaTokenizer",
                **config,
                "added_tokens_decoder": self._model.declared(),
            }
            self._model.save(folder / "tokenizer.model")
        else:
            # The declared class decides how transformers rebuilds the tokenizer; this one takes
            # tokenizer.json as it is.
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
            self._model.save(folder / "tokenizer.json")
        for name, content in (
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", self._named),
        ):
            text = json.dumps(content, ensure_ascii=False, indent=2)
            (folder / name).write_text(text + "\n", encoding="utf-8")

    # Inside

    def _named_id(self, name: str) -> int | None:
        text = self._named.get(name)
        return None if text is None else self._model.token_to_id(text)

    def _check_spaces(self) -> None:
        """Refuse a byte-level vocabulary behind sentencepiece rules: it would read ` Yes` as `Yes`."""
        for text in ("? Yes", "? No"):
            if self.decode(self.encode(text)) != text:
                raise UserError(f"the tokenizer does not keep spaces: {text!r} comes back as another text")

    @cached_property
    def _marks(self) -> MarkFinder:
        return MarkFinder(self._control.values(), self._model)

    @cached_property
    def _trusted_marks(self) -> MarkFinder:
        assert isinstance(self._model, SentencePieceModel)
        return MarkFinder(self._model.trusted_marks.values(), self._model)


_ANY_CONTROL = -1


class JsonModel:
    """A tokenizer.json, by the library tokenizers: the whole tokenizer, and the same for untrusted text.

    Args:
      backend: with all added tokens. Its truncation and padding are switched off.
    Raises:
      UserError: it is neither byte-level nor of sentencepiece's kind.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.size: int = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.token_to_id = backend.token_to_id
        self._added = backend.get_added_tokens_decoder()
        self._inner: dict[Start, tuple[tokenizers.Tokenizer, dict[int, int]]] = {}
        self.byte_level = is_byte_level(backend)
        self.collapses = may_collapse(backend)

    def encode_whole(self, text: str) -> list[int]:
        """ids [T] with control ids."""
        try:
            return self.backend.encode(text, add_special_tokens=False).ids
        except BaseException as error:
            raise _refusal(error) from error

    def encode(self, text: str, before: int | None, trusted: bool) -> list[int]:
        """ids [T] without control ids. before: the control token that the text follows; None: it is the start."""
        plain, ids_of_kept = self._plain if before is None else self._plain_behind(before)
        # The batched call computes no offsets, and other threads run meanwhile: training reads its data in one.
        ids = plain.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return [ids_of_kept.get(id, id) for id in ids] if ids_of_kept else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids that are in the vocabulary."""
        return self.backend.decode(ids, skip_special_tokens=False)

    def table(self) -> dict[int, bytes]:
        """id -> the bytes that it adds to a running text."""
        to_bytes = byte_level_bytes if self.byte_level else piece_bytes
        pieces = {id: to_bytes(piece) for piece, id in self.backend.get_vocab(with_added_tokens=False).items()}
        return pieces | {id: token.content.encode("utf-8") for id, token in self._added.items()}

    def save(self, path: Path) -> None:
        self.backend.save(str(path))

    @cached_property
    def _plain(self) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
        return plain_copy(self.backend, "text")

    def _plain_behind(self, control: int) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
        """The same for text that follows a control token."""
        if self.byte_level:
            return self._plain
        token = self._added.get(control)
        start: Start = "nothing" if token is not None and token.normalized else "run"
        if start not in self._inner:
            self._inner[start] = plain_copy(self.backend, start)
        return self._inner[start]


def _refusal(error: BaseException) -> BaseException:
    """A text on which the library fails, by an exception or a panic, fails alone."""
    if not is_failure(error):
        return error
    return RequestError(f"the tokenizer fails on this text: {reason_of(error, '{}')}")


class MarkFinder:
    """Finds added tokens as the library does, with all their flags: all text between them is one unknown word."""

    def __init__(self, marks: Iterable[AddedToken], model: JsonModel | SentencePieceModel) -> None:
        self._finder = tokenizers.Tokenizer(models.WordLevel({NO_TOKEN: 0}, unk_token=NO_TOKEN))
        if isinstance(model, JsonModel) and model.backend.normalizer is not None:
            self._finder.normalizer = model.backend.normalizer
        self._finder.add_tokens(list(marks))
        self._texts = {id: token.content for id, token in self._finder.get_added_tokens_decoder().items()}

    def find(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, text of the token) in the order of ``text``; blanks that it takes with it are inside."""
        found = self._finder.encode(text, add_special_tokens=False)
        places = zip(found.ids, found.offsets, strict=True)
        return [(start, end, self._texts[id]) for id, (start, end) in places if id in self._texts]


def _check_encodable(text: str) -> None:
    """NUL and every other character has UTF-8 bytes; half of a surrogate pair has none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise RequestError(f"character {error.start} of the text is a lone surrogate (U+{code:04X})") from error
