"""A tokenizer.model, read by the library that wrote it.

sentencepiece normalises, cuts and joins text in ways that no conversion follows in every case (unigram models,
user-defined symbols, blanks at the ends). So its own processor encodes, and what a folder adds to the model lies
over it: control tokens are cut out of a text before the processor sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from thinkprm_jax.tokenizer.pieces import is_plain, piece_bytes

# Types of a piece in the model's file; normal ones are 1.
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6


class SentencePieceModel:
    """The pieces of a model with what its folder adds; text to ids and back.

    Args:
      proto: the bytes of a tokenizer.model.
      prefix_each_run: whether the text behind a control token begins with a blank as the start of a text does
        (only where the model adds one there). So the code of these models encodes; `legacy: false` in
        tokenizer_config.json says otherwise.
    Raises:
      Exception: of whatever kind, where the bytes are no model.
    """

    byte_level = False

    def __init__(self, proto: bytes, prefix_each_run: bool = True) -> None:
        from sentencepiece import sentencepiece_model_pb2

        schema: Any = sentencepiece_model_pb2  # made by protobuf: its classes have no types
        model = schema.ModelProto()
        model.ParseFromString(proto)
        if not model.pieces:
            raise ValueError("it has no pieces")
        self._proto, self._model, self._prefix_each_run = proto, model, prefix_each_run
        self.collapses: bool = model.normalizer_spec.remove_extra_whitespaces  # any number of blanks to one
        self._processors: dict[tuple[bool, bool], Any] = {}
        self._texts = [piece.piece for piece in model.pieces]
        self._ids = {text: id for id, text in reversed(list(enumerate(self._texts)))}
        self._user_defined = {id for id, piece in enumerate(model.pieces) if piece.type == _USER_DEFINED}
        self._added: dict[int, AddedToken] = {}
        for id, piece in enumerate(model.pieces):
            if piece.type in (_UNKNOWN, _CONTROL):
                self._added[id] = AddedToken(piece.piece, special=True, normalized=False)
            elif piece.type == _USER_DEFINED and not is_plain(AddedToken(piece.piece)):
                self._added[id] = AddedToken(piece.piece, special=False, normalized=False)
        whole = self._processor(True, False)
        ids = {"bos_token": whole.bos_id(), "eos_token": whole.eos_id(), "unk_token": whole.unk_id()}
        self.named: dict[str, str] = {name: self._texts[id] for name, id in ids.items() if id >= 0}

    # What the tokenizers library calls so, too

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """id -> token: control pieces, user-defined marks, and what the folder adds."""
        return dict(self._added)

    def token_to_id(self, text: str) -> int | None:
        """The id of a piece or an added token."""
        return self._ids.get(text)

    def add_tokens(self, tokens: Sequence[AddedToken]) -> None:
        """Adds tokens: at the id of the piece of the same text, or behind all others."""
        for token in tokens:
            id = self._ids.get(token.content)
            self.declare(self.size if id is None else id, token)

    def declare(self, id: int, token: AddedToken) -> None:
        """Adds ``token`` at ``id``, in the place of the piece there. Raises ValueError where it has another id."""
        if not 0 <= id < _MOST_IDS:
            raise ValueError(f"{token.content!r} cannot have the id {id}")
        if self._ids.get(token.content, id) != id and self._ids[token.content] in self._added:
            raise ValueError(f"{token.content!r} has two ids, {self._ids[token.content]} and {id}")
        if is_plain(token) and id in self._user_defined:
            return
        self._added[id], self._ids[token.content] = token, id
        self._processors.clear()

    # Text and ids

    @property
    def size(self) -> int:
        """One above the highest id."""
        return max(len(self._texts), max(self._added, default=-1) + 1)

    @property
    def trusted_marks(self) -> Mapping[int, AddedToken]:
        """The added tokens that the processor does not find by itself."""
        return {id: token for id, token in self._added.items() if id not in self._user_defined}

    def encode(self, text: str, before: int | None, trusted: bool) -> list[int]:
        """ids [T] of a run of text.

        Args:
          before: the control token that it follows; None: it is the start.
          trusted: whether marks that the user of the model defined are found in it.
        """
        at_start = before is None or (self._prefix_each_run and before not in self._user_defined)
        ids: list[int] = self._processor(at_start, not trusted).encode(text)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, which are all in the vocabulary; control tokens appear as their text."""
        text, run, before = "", list[int](), None
        for id in [*ids, None]:
            if id is not None and id not in self._added:
                run.append(id)
                continue
            if run:
                at_start = before is None or (self._prefix_each_run and before not in self._user_defined)
                text += self._processor(at_start, False).decode(run)
            if id is not None:
                text += self._added[id].content
            run, before = [], id
        return text

    def table(self) -> dict[int, bytes]:
        """id -> the bytes that it adds to a running text."""
        pieces = dict(enumerate(map(piece_bytes, self._texts)))
        return pieces | {id: token.content.encode("utf-8") for id, token in self._added.items()}

    def save(self, path: Path) -> None:
        """Writes the tokenizer.model as it was read."""
        path.write_bytes(self._proto)

    def declared(self) -> dict[str, Any]:
        """The `added_tokens_decoder` of tokenizer_config.json: what :meth:`declare` is told."""
        flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
        return {
            str(id): {"content": token.content} | {name: getattr(token, name) for name in flags}
            for id, token in sorted(self._added.items())
        }

    def _processor(self, prefixed: bool, plain: bool) -> Any:
        """prefixed: with the blank that the model puts before a text, if it does. plain: cannot write an added
        token, whatever a text spells; pieces of the same text are not used."""
        key = (prefixed or not self._model.normalizer_spec.add_dummy_prefix, plain)
        if key not in self._processors:
            from sentencepiece import SentencePieceProcessor

            model = type(self._model)()
            model.CopyFrom(self._model)
            if not prefixed:
                model.normalizer_spec.add_dummy_prefix = False
            for id, piece in enumerate(model.pieces):
                spelt = piece.type not in (_UNKNOWN, _CONTROL, _BYTE)
                if plain and spelt and (id in self._added or self._ids[piece.piece] in self._added):
                    piece.type = _UNUSED
            self._processors[key] = SentencePieceProcessor(model_proto=model.SerializeToString())
        return self._processors[key]


_MOST_IDS = 2**31
